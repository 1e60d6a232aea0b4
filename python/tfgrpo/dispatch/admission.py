"""Admission of model calls: who may go when, under what the provider permits.

Every decision is made in Rust, by `_core.Admission`, to which time is an argument. This wrapper does the waiting: a
caller that must wait has a future, and one timer is set for the instant at which the core wants to be asked again.
Nobody polls, and no task of our own has to be kept alive.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tfgrpo import _core
from tfgrpo.events import AdmissionState
from tfgrpo.models import LimitReading

#: Calls that one look lets go; the loop turns to answers before the next look.
_AT_ONCE = 64

_KINDS = {"requests": 0, "tokens": 1, "input_tokens": 2, "output_tokens": 3}


class Lease:
    """The right to one attempt, from `Admission.slot`: entering waits for it, leaving gives it back.

    It is given back at once by the method that says how the attempt ended; the first one counts. Left without a
    word, an attempt that was sent counts with what it was expected to use, and one that was not with nothing. As an
    `Observer` of the attempt it hands on what the model sees.
    """

    __slots__ = ("_admission", "_asked", "_future", "_held", "_sent", "_ticket", "on_first_token", "on_sent")

    def __init__(self, admission: Admission, asked: tuple[int, int, int, int]) -> None:
        self._admission = admission
        self._asked = asked
        self._ticket = -1
        self._future: asyncio.Future[None] | None = None
        self._held = self._sent = False
        self.on_sent: Callable[[], None] | None = None
        self.on_first_token: Callable[[], None] | None = None

    def enter(self) -> bool:
        """Queue; True if it may go at once. Otherwise `wait`."""
        admission = self._admission
        ticket = self._ticket = admission.core.submit(*self._asked, admission.now())
        admission.waiting[ticket] = self
        admission.grant()
        return self._held

    async def wait(self) -> None:
        """Wait for the grant. Cancellation leaves the queue."""
        admission = self._admission
        future = self._future = admission.loop.create_future()
        try:
            await future
        except BaseException:
            if self._held:  # granted just before it was cancelled
                self.failed()
            else:
                del admission.waiting[self._ticket]
                admission.core.cancel(self._ticket)
                admission.grant()
            raise

    def leave(self) -> None:
        """Give it back, if nobody said how it ended."""
        if self._held:
            if self._sent:
                self.done(None)
            else:
                self.failed()

    async def __aenter__(self) -> Self:
        if not self.enter():
            await self.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def granted(self) -> None:
        """The core lets it go."""
        self._held = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    # --- as an Observer ----------------------------------------------------------------------------------

    def sent(self) -> None:
        """The request leaves now."""
        self._sent = True
        if self._held:
            self._admission.core.sent(self._ticket, self._admission.now())
        if self.on_sent is not None:
            self.on_sent()

    def answered(self, status: int, readings: Sequence[LimitReading]) -> None:
        """The head of a response tells of limits."""
        if readings and self._held:
            told = [(_KINDS[r.kind], r.limit, r.remaining, r.reset, r.window) for r in readings]
            self._admission.core.read(self._ticket, told, status == 429, self._admission.now())

    def first_token(self) -> None:
        """The answer begins."""
        if self.on_first_token is not None:
            self.on_first_token()

    # --- how it ended ------------------------------------------------------------------------------------

    def done(self, used: tuple[int, int] | None) -> None:
        """It was answered and used so many tokens, in and out; None: as many as expected."""
        if self._give_back():
            self._admission.core.done(self._ticket, self._admission.now(), used)
            self._admission.grant()

    def rate_limited(self, retry_after: float | None = None) -> None:
        """429: the whole fan-out pauses, for `retry_after` seconds or for as long as is known to be needed.

        One cut an episode: calls that were in flight when it began prolong the pause only by what their own
        `retry_after` says.
        """
        if self._give_back():
            self._admission.core.rate_limited(self._ticket, self._admission.now(), retry_after)
            self._admission.grant()

    def overloaded(self, retry_after: float | None = None) -> None:
        """503 or 529: growth stands still, and all calls pause for `retry_after` seconds if it says so."""
        if self._give_back():
            self._admission.core.overloaded(self._ticket, self._admission.now(), retry_after)
            self._admission.grant()

    def timed_out(self) -> None:
        """No answer in time."""
        if self._give_back():
            self._admission.core.timed_out(self._ticket, self._admission.now())
            self._admission.grant()

    def failed(self) -> None:
        """It failed otherwise, and used nothing."""
        if self._give_back():
            self._admission.core.failed(self._ticket, self._admission.now())
            self._admission.grant()

    def _give_back(self) -> bool:
        held, self._held = self._held, False
        return held


class Admission:
    """One gate for all calls to one provider with one key and model. None is no limit of ours.

    Belongs to one event loop. Grants go by priority, fairly between runs, then by arrival: a large call is never
    overtaken by a smaller one of its priority. Configured rates have a burst of one second's worth, at least one call.

    Args:
        concurrency: calls in flight at once.
        requests_per_minute: calls started a minute.
        tokens_per_minute: tokens a minute, in and out together.
        input_tokens_per_minute: tokens of prompts a minute.
        output_tokens_per_minute: tokens of answers a minute.

    Raises:
        CoreError: a limit is 0.
        RuntimeError: there is no running event loop.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        input_tokens_per_minute: int | None = None,
        output_tokens_per_minute: int | None = None,
    ) -> None:
        self.core = _core.Admission(
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            input_tokens_per_minute=input_tokens_per_minute,
            output_tokens_per_minute=output_tokens_per_minute,
        )
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.waiting: dict[int, Lease] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = math.inf

    def slot(
        self, *, priority: int = 0, run: int = 0, input_tokens: int = 0, output_tokens: int = 0
    ) -> Lease:
        """The right to one attempt; `async with` waits for it and gives it back, however that happens.

        Retry outside of it: leave, back off, and queue again.

        Args:
            priority: the lower number goes first.
            run: whose call it is; runs of equal priority take turns.
            input_tokens: what the prompt will use, as far as can be guessed.
            output_tokens: what the answers will use.

        Cancellation: a waiting caller leaves the queue, and who stood behind it moves up.
        """
        return Lease(self, (priority, run, input_tokens, output_tokens))

    def snapshot(self) -> AdmissionState:
        """The state now."""
        return AdmissionState(*self.core.snapshot(self.now()))

    def grant(self) -> None:
        """Let go who may, and see that the core is asked again when it wants to be."""
        granted, wake = self.core.poll(self.now(), _AT_ONCE)
        for ticket in granted:
            self.waiting.pop(ticket).granted()
        if wake is None or wake < self._alarm:
            if self._timer is not None:
                self._timer.cancel()
                self._timer, self._alarm = None, math.inf
            if wake is not None:
                self._timer, self._alarm = self.loop.call_at(wake, self._ring), wake
        # An alarm that is too early rings, and then asks anew.

    def _ring(self) -> None:
        self._timer, self._alarm = None, math.inf
        self.grant()
