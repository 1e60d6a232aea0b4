"""What keeps retries from making an outage worse: an allowance that successes earn, and a breaker.

One of each for a provider's model, shared by all calls of a run that go there.
"""

from __future__ import annotations

from collections import deque

import anyio

from tfgrpo.errors import (
    ConnectError,
    ConnectionLostError,
    MalformedReplyError,
    ModelError,
    ModelTimeoutError,
    ServerError,
)

#: Retries that a run may make before anything succeeded, and those a success earns.
FIRST_RETRIES, EARNED_RETRIES = 20.0, 0.15
#: The same for retries of attempts that may have been paid: each of them may pay twice.
FIRST_PAID, EARNED_PAID = 10.0, 0.05

#: The breaker opens when so many of the last attempts failed by the server's fault, within so many seconds.
WINDOW, FEWEST, SHARE, RECENT = 20, 10, 0.8, 60.0
#: How long (seconds) it stays open the first time, and at most.
FIRST_OPEN, LONGEST_OPEN = 1.0, 60.0

_OUTAGES = (ConnectError, ConnectionLostError, ModelTimeoutError, ServerError, MalformedReplyError)


class Allowance:
    """Retries earned by successes. A retry beyond it waits, so that an outage is not answered by a storm.

    Args:
        first: retries that need no success.
        earned: retries that one success earns; the allowance never holds more than ten times `first`.
    """

    def __init__(self, first: float, earned: float) -> None:
        self.left = first
        self._earned = earned
        self._most = 10 * first
        self._waiting = 0
        self._changed = anyio.Event()

    def earn(self) -> None:
        """A call succeeded."""
        if self.left < self._most:
            self.left += self._earned
            self._tell()

    def idle(self) -> None:
        """Nothing is under way that could earn: one who waits may go, or all would wait for ever."""
        if self.left < 1.0:
            self.left = 1.0
            self._tell()

    async def take(self) -> None:
        """Spend one retry; waits until there is one. Cancellation spends nothing."""
        while self.left < 1.0:
            self._waiting += 1
            try:
                await self._changed.wait()
            finally:
                self._waiting -= 1
        self.left -= 1.0

    def _tell(self) -> None:
        if self._waiting and self.left >= 1.0:
            self._changed.set()
            self._changed = anyio.Event()


class Breaker:
    """Open while a provider's model is down: calls wait, one at a time tries whether it is up again.

    429s and refusals of a request are answers: they count as neither success nor failure.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self._open_until: float | None = None
        self._opened: float | None = None
        self._length = FIRST_OPEN
        self._trying = False
        self._changed = anyio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the provider counts as down."""
        return self._open_until is not None

    def down_for(self, now: float) -> float:
        """Seconds since it opened; 0 while it is closed."""
        return 0.0 if self._opened is None else now - self._opened

    async def wait(self) -> bool:
        """Wait while it is open; returns True for the one caller that tries. Say how that ended.

        Cancellation: the caller leaves; another one tries.
        """
        while self._open_until is not None:
            now = anyio.current_time()
            if not self._trying and now >= self._open_until:
                self._trying = True
                return True
            changed = self._changed
            with anyio.move_on_after(None if self._trying else self._open_until - now):
                await changed.wait()
        return False

    def succeeded(self, now: float) -> None:
        """An attempt was answered."""
        if self._open_until is None:
            self._recent.append((now, True))
        else:
            self._close()

    def failed(self, error: ModelError, now: float, *, trial: bool = False) -> None:
        """An attempt failed; `trial` if `wait` had returned True for it.

        What was under way when it opened says nothing new: only a trial makes it stay open for longer.
        """
        if not isinstance(error, _OUTAGES):
            if self._open_until is not None:
                self._close()  # it answers again, even if it refuses
            return
        if self._open_until is not None:
            if trial:
                self._length = min(2 * self._length, LONGEST_OPEN)
                self._open_until = now + self._length
                self.gave_up()
            return
        self._recent.append((now, False))
        failed = sum(1 for at, good in self._recent if not good and now - at <= RECENT)
        if len(self._recent) >= FEWEST and failed >= max(FEWEST, SHARE * len(self._recent)):
            self._open_until, self._opened, self._length = now + FIRST_OPEN, now, FIRST_OPEN

    def gave_up(self) -> None:
        """The caller that tried ended without an answer of any kind."""
        self._trying = False
        self._tell()

    def _close(self) -> None:
        self._open_until = self._opened = None
        self._trying = False
        self._recent.clear()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
