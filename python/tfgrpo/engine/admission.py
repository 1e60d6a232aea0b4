"""Admission of model calls: who may go when, under concurrency, requests and tokens per minute.

Every decision is made in Rust, by `_core.Admission`, to which time is an argument. This wrapper does the waiting:
each caller waits on an event of its own, and one of them, the keeper, also sets its alarm for the instant at
which the core wants to be asked again. Nobody polls, and no task of our own has to be kept alive.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from tfgrpo import _core
from tfgrpo.events import AdmissionState


class Lease:
    """The right to one call in flight, held inside `Admission.slot`. Say how the call ended before leaving.

    A lease about which nothing is said counts with the tokens it asked for.
    """

    def __init__(self) -> None:
        self._tokens: int | None = None
        self.limited = False
        self._retry_after: float | None = None

    def settle(self, tokens: int) -> None:
        """The call used this many tokens, in and out; what exceeds the estimate is paid by later calls."""
        self._tokens = tokens

    def rate_limited(self, retry_after: float | None = None) -> None:
        """The provider answered 429: all calls pause for `retry_after` seconds, or for a growing time.

        Calls that were in flight when a pause began and fail the same way lengthen it only by what their own
        `retry_after` says.
        """
        self.limited, self._retry_after = True, retry_after

    def give_back(self, core: _core.Admission, ticket: int, now: float) -> None:
        """Tells the core how the call ended."""
        if self.limited:
            core.release_rate_limited(ticket, now, self._retry_after)
        else:
            core.release(ticket, now, self._tokens)


class _Waiter:
    """A caller in the queue; the event means "look again"."""

    def __init__(self) -> None:
        self.granted = False
        self.event = anyio.Event()


class Admission:
    """One gate for all calls to one provider. None is no limit; bursts are one second's worth, at least one call.

    Belongs to one event loop. Grants go strictly by (priority, arrival): a large call is never overtaken.

    Args:
        concurrency: calls in flight at once.
        requests_per_minute: calls started a minute.
        tokens_per_minute: tokens a minute, in and out together.

    Raises:
        CoreError: a limit is 0.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self._core = _core.Admission(
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        self._places = concurrency
        self._per_second = None if requests_per_minute is None else requests_per_minute / 60
        self._started: Counter[int] = Counter()  # calls by whole second, the last ten of them
        self._limited = 0
        self._waiters: dict[int, _Waiter] = {}
        self._wake: float | None = None
        self._keeper: int | None = None
        self._alarm = math.inf

    @asynccontextmanager
    async def slot(self, *, priority: int = 0, tokens: int = 0) -> AsyncIterator[Lease]:
        """Waits for the right to make one call; gives it back on leaving, however that happens.

        Retry outside of it: leave, back off, and queue again.

        Args:
            priority: the lower number goes first.
            tokens: what the call will use, in and out, as far as can be guessed.

        Cancellation: a waiting caller leaves the queue, and who stood behind it moves up.
        """
        lease = Lease()
        ticket = await self._admitted(priority, tokens)
        try:
            yield lease
        finally:
            self._limited += lease.limited
            lease.give_back(self._core, ticket, anyio.current_time())
            self._grant()

    def snapshot(self) -> AdmissionState:
        """The state now."""
        now = anyio.current_time()
        in_flight, waiting, paused_until, binding = self._core.snapshot(now)
        recent = [count for second, count in self._started.items() if now - 10 <= second < now // 1]
        permitted = self._per_second if binding == "requests" else None
        achieved = sum(recent) / max(len(recent), 1)
        return AdmissionState(
            in_flight, waiting, paused_until, binding, self._places, permitted, achieved, self._limited
        )

    async def _admitted(self, priority: int, tokens: int) -> int:
        """Queues, waits, and returns the ticket once it is granted."""
        ticket = self._core.submit(priority, tokens, anyio.current_time())
        waiter = self._waiters[ticket] = _Waiter()
        try:
            self._grant()
            while not waiter.granted:
                await self._look_again(ticket, waiter)
        except BaseException:
            # Cancelled while it waits, or just after the grant that it does not know of yet.
            if waiter.granted:
                self._core.release(ticket, anyio.current_time(), 0)
            else:
                del self._waiters[ticket]
                self._core.cancel(ticket)
            self._grant()
            raise
        return ticket

    async def _look_again(self, ticket: int, waiter: _Waiter) -> None:
        """Waits for the event, the keeper also for its alarm."""
        waiter.event = anyio.Event()
        alarm = math.inf
        if self._keeper == ticket:
            alarm = self._alarm = math.inf if self._wake is None else self._wake
        with anyio.CancelScope(deadline=alarm):
            await waiter.event.wait()
            return
        self._grant()

    def _grant(self) -> None:
        """Lets go who may, and sees that somebody wakes when the core wants to be asked again."""
        now = anyio.current_time()
        granted, self._wake = self._core.poll(now)
        if granted:
            self._started[int(now)] += len(granted)
            while len(self._started) > 12:
                del self._started[min(self._started)]
        for ticket in granted:
            waiter = self._waiters.pop(ticket)
            waiter.granted = True
            waiter.event.set()
        if self._wake is None:
            return
        if self._keeper not in self._waiters:
            self._keeper, self._alarm = next(iter(self._waiters)), math.inf
        if self._wake < self._alarm:
            self._alarm = self._wake
            self._waiters[self._keeper].event.set()
