"""Deadlines for many calls that may all take equally long: one timer for all of them."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


class Deadline:
    """A time limit that any number of calls can be under at once: `with deadline.watch(): ...`.

    All calls get the same number of seconds, so they fall due in the order in which they began, and one timer
    for the oldest is enough. It costs a tenth of a scope with a timer of its own, which thousands of short calls
    notice. Otherwise it is `asyncio.timeout`: the task is cancelled where it waits, and the cancellation becomes
    a `TimeoutError` at the end of the block unless somebody else has cancelled the task as well.

    Args:
        seconds: how long a call may take, by the clock of the event loop; infinite until `cut` if not given.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._cut = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[Watch, None] = {}

    def watch(self) -> Watch:
        """A context manager for one call: raises TimeoutError when its time is over."""
        return Watch(self)

    def begin(self, watch: Watch, loop: asyncio.AbstractEventLoop) -> None:
        """Count a call from now on."""
        if loop is not self._loop:
            self._loop, self._timer, self._running = loop, None, {}
        self._running[watch] = None
        if self.seconds < math.inf or self._cut < math.inf:
            watch.until = min(loop.time() + self.seconds, self._cut)
            if self._timer is None:
                self._timer = loop.call_at(watch.until, self._due, loop)

    def cut(self, seconds: float) -> None:
        """End all calls, those to come included, after so many seconds; the first cut counts."""
        loop = asyncio.get_running_loop()
        if self._cut < math.inf:
            return
        self._cut = loop.time() + seconds
        for watch in self._running:
            watch.until = min(watch.until, self._cut)
        if self._running and self._timer is None:
            self._timer = loop.call_at(self._cut, self._due, loop)

    def end(self, watch: Watch) -> None:
        """Forget a call."""
        self._running.pop(watch, None)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the calls whose time is over; the timer goes on for the oldest of the others, if any."""
        self._timer = None
        now = loop.time()
        while self._running:
            oldest = next(iter(self._running))
            if oldest.until > now:
                self._timer = loop.call_at(oldest.until, self._due, loop)
                return
            self.end(oldest)
            oldest.expire()


class Watch:
    """One call under a `Deadline`."""

    __slots__ = ("_cancelling", "_deadline", "_expired", "_task", "until")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._expired = False
        self.until = math.inf

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline needs a task to cancel")
        self._task = task
        self._cancelling = task.cancelling()
        self._deadline.begin(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._expired:
            self._deadline.end(self)
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task where it waits."""
        self._expired = True
        self._task.cancel()
