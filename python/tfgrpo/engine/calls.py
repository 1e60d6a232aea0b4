"""One paid call: journaled before it is sent and before it is used, admitted, retried outside its slot.

The only place that talks to a model. A logical call has a key ("practice/0003/t17/0x5"); its attempts are
numbered. A call that the journal holds as completed is answered from there and costs nothing.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NoReturn, TypeVar

import anyio
import msgspec

from tfgrpo.config import Config, Endpoint
from tfgrpo.engine.admission import Admission, Lease
from tfgrpo.engine.budget import Budget
from tfgrpo.errors import (
    FATAL_MODEL_ERRORS,
    BudgetError,
    ConnectError,
    InterruptedRunError,
    JournalError,
    JournalMismatchError,
    ModelError,
    RateLimitedError,
    RunStoppedError,
    TfgrpoError,
)
from tfgrpo.events import CallFinished, Hooks
from tfgrpo.journal import CallState, CallStatus, Journal, request_digest
from tfgrpo.models import LimitReading, Model
from tfgrpo.models.pricing import cost
from tfgrpo.types import Fault, FaultKind, ModelReply, ModelRequest, Role, Usage

T = TypeVar("T")

#: A provider that answers nothing but 429 to one call, or asks to wait, for this long (seconds) stops the run.
PATIENCE = 1800.0
#: How long (seconds) calls in flight may still finish once the run has to stop.
DRAIN = 30.0
#: Output tokens assumed for a call before any call of its role has told better.
FIRST_OUTPUT_GUESS = 256

BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 30.0


class Calls:
    """Every model call of a run goes through here.

    Args:
        journal: where intents and completions become durable.
        models: the model of each role.
        admissions: the limits of each role; roles that share an endpoint share the object.
        budget: the account of the run.
        config: limits and prices.
        hooks: receive `CallFinished`.
    """

    def __init__(
        self,
        journal: Journal,
        models: Mapping[Role, Model],
        admissions: Mapping[Role, Admission],
        budget: Budget,
        config: Config,
        hooks: Hooks,
    ) -> None:
        self.budget = budget
        self._journal = journal
        self._models = models
        self._admissions = admissions
        self._attempts = config.limits.attempts
        self._endpoints: dict[Role, Endpoint] = {role: config.model.role(role) for role in Role}
        self._hooks = hooks
        self._output_mean: dict[Role, float] = {}
        self._jitter = random.Random(config.run.seed)
        self._in_flight = 0
        self._halted: RunStoppedError | None = None
        self._waiting: set[anyio.CancelScope] = set()
        self._flying: set[anyio.CancelScope] = set()
        self._drained = anyio.Event()

    def count_open_intents(self) -> None:
        """Charge the budget with what an earlier engine had in flight when it ended: it may have been paid."""
        reader = self._journal.reader
        if reader.open_intents() == 0:
            return  # the common case: no need to read every call of a long run
        for call in reader.calls():
            if call.state is CallStatus.OPEN:
                estimate = self._estimate(call.role, reader.request(call.key, call.attempt))
                self.budget.spent = self.budget.spent + estimate

    def group_limit(self, role: Role) -> int | None:
        """How many answers one request of this role may ask for; None where there is no known bound."""
        return self._models[role].group_limit

    def halt(self, reason: TfgrpoError) -> RunStoppedError:
        """Launch nothing more; calls in flight may finish and are kept; then every caller gets the error.

        The first reason stays; the error that carries it is returned.
        """
        if self._halted is None:
            self._halted = RunStoppedError(reason)
            for scope in self._flying:
                scope.deadline = anyio.current_time() + DRAIN
            for scope in tuple(self._waiting):
                scope.cancel()
            if self._in_flight == 0:
                self._drained.set()
        return self._halted

    async def complete(
        self,
        key: str,
        role: Role,
        request: ModelRequest,
        *,
        priority: int = 0,
        stream: bool = False,
        on_launch: Callable[[], None] | None = None,
        on_first_token: Callable[[], None] | None = None,
        on_limited: Callable[[], None] | None = None,
    ) -> ModelReply:
        """Answer a logical call from the journal, or make it, with retries, and journal it.

        Args:
            key: the logical key of the call.
            role: whose model, limits and account.
            request: what is asked; must equal the journaled request of the same key.
            priority: smaller goes first among calls that wait for a slot.
            stream: let the answer come in pieces, so that its first token is seen early.
            on_launch: called each time an attempt is really sent.
            on_first_token: called when the first piece of the answer, or a replayed reply, is there.
            on_limited: called each time an attempt was refused by a rate limit.

        Raises:
            ModelError: all attempts failed, or the failure is of a kind that no attempt can mend.
            RunStoppedError: the budget is spent, the provider refuses the key or is down, or a signal came;
                calls in flight were given time to finish.
            JournalMismatchError: the journal holds another request under this key.
            JournalError: nothing can be made durable.

        Cancellation: a waiting call leaves the queue. A call in flight is aborted; its intent stays open in
        the journal and is counted as possibly paid.
        """
        last: CallState | None = self._journal.last(key)
        if last is not None:
            if last.digest != request_digest(request):
                raise JournalMismatchError(
                    f"The journal holds another request under {key}: prompts, data or settings changed "
                    "since. Resume with the configuration the run was started with, or start a new run."
                )
            if last.reply is not None:
                if on_first_token is not None:
                    on_first_token()
                return last.reply
        attempt = 0 if last is None else last.attempt + 1
        failures = 0
        limited_since: float | None = None
        watch = Watch(on_launch, on_first_token)
        while True:
            try:
                return await self._attempt(key, attempt, role, request, priority, watch, stream)
            except ModelError as error:
                attempt += 1
                if isinstance(error, RateLimitedError):
                    # 429s are the provider pacing us, not failures: the admission pauses, nothing is charged.
                    if on_limited is not None:
                        on_limited()
                    now = anyio.current_time()
                    limited_since = now if limited_since is None else limited_since
                    if now - limited_since + (error.retry_after or 0.0) > PATIENCE:
                        await self._stop(error)
                    continue
                limited_since = None
                failures += 1
                if isinstance(error, FATAL_MODEL_ERRORS):
                    await self._stop(error)
                if not error.retryable:
                    raise
                if failures >= self._attempts:
                    if isinstance(error, ConnectError):
                        await self._stop(error)  # an endpoint that is down fails every task alike
                    raise
                if (error.retry_after or 0.0) > PATIENCE:
                    await self._stop(error)
                await self._pause(failures, error.retry_after)

    async def _attempt(
        self,
        key: str,
        attempt: int,
        role: Role,
        request: ModelRequest,
        priority: int,
        watch: Watch,
        stream: bool,
    ) -> ModelReply:
        async with self._launch(role, request, priority) as launch:
            await self._journal.intend(key, attempt, role, request)
            try:
                reply = await self._send(key, role, request, watch, stream)
            except ModelError as error:
                launch.failed(error)
                fault = fault_of(error, FaultKind.MODEL)
                await self._journal.fail(key, attempt, fault, maybe_paid=error.maybe_paid, usage=launch.spent)
                raise
            launch.answered(reply)
            await self._journal.complete(key, attempt, reply)
        self._learn(role, request, reply)
        self._hooks.emit(CallFinished(key, reply.usage, self.budget.spent))
        return reply

    async def _send(
        self, key: str, role: Role, request: ModelRequest, watch: Watch, stream: bool
    ) -> ModelReply:
        """The exchange itself; once the run has to stop it has `DRAIN` seconds left, and its intent stays open."""
        with anyio.CancelScope() as scope:
            self._flying.add(scope)
            try:
                return await self._models[role].complete(request, key=key, observer=watch, stream=stream)
            finally:
                self._flying.discard(scope)
        raise self.halt(InterruptedRunError("The call was cut off."))  # the scope is only cut off by a halt

    @asynccontextmanager
    async def _launch(self, role: Role, request: ModelRequest, priority: int) -> AsyncIterator[Launch]:
        """Budget and slot of one attempt; whatever stops the run for good halts it from here."""
        estimate = self._estimate(role, request)
        try:
            await self._unless_halted(lambda: self.budget.reserve(estimate))
        except BudgetError as error:
            await self._stop(error)
        launch = Launch(estimate)
        try:
            async with AsyncExitStack() as stack:
                slot = self._admissions[role].slot(priority=priority, tokens=estimate.tokens)
                launch.lease = await self._unless_halted(lambda: stack.enter_async_context(slot))
                self._in_flight += 1
                try:
                    yield launch
                except JournalError as error:
                    self.halt(error)
                    raise
                finally:
                    self._in_flight -= 1
                    if self._halted is not None and self._in_flight == 0:
                        self._drained.set()
        finally:
            self.budget.settle(estimate, launch.spent)

    async def _unless_halted(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Await what must precede a launch; a halt ends the wait."""
        if self._halted is None:
            with anyio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    got = await wait()
                finally:
                    self._waiting.discard(scope)
                if self._halted is None:
                    return got
        return await self._stop(InterruptedRunError("The run was halted."))

    async def _stop(self, reason: TfgrpoError) -> NoReturn:
        """Halt, let what is in flight finish within the bound, and raise."""
        stopped = self.halt(reason)
        with anyio.move_on_after(DRAIN):
            await self._drained.wait()
        raise stopped

    async def _pause(self, failures: int, floor: float | None) -> None:
        """Back off outside the slot: full jitter, never less than what the provider asked for."""
        longest = min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0**failures)
        seconds = max(floor or 0.0, self._jitter.uniform(0, longest))
        await self._unless_halted(lambda: anyio.sleep(seconds))

    def _estimate(self, role: Role, request: ModelRequest) -> Usage:
        """What a call may cost: prompt length over four, and the mean output of its role so far, n times."""
        characters = sum(len(message.content) for message in request.messages)
        output = self._output_mean.get(role, request.max_tokens or FIRST_OUTPUT_GUESS)
        usage = Usage(1, characters // 4 + 1, 0, round(request.n * output))
        return msgspec.structs.replace(usage, usd=cost(usage, self._endpoints[role].price))

    def _learn(self, role: Role, request: ModelRequest, reply: ModelReply) -> None:
        each = reply.usage.output_tokens / request.n
        mean = self._output_mean.get(role, each)
        self._output_mean[role] = mean + 0.1 * (each - mean)


class Watch:
    """Passes on what a caller wants to know of its attempts."""

    def __init__(
        self, on_launch: Callable[[], None] | None, on_first_token: Callable[[], None] | None
    ) -> None:
        self._on_launch = on_launch
        self._on_first_token = on_first_token

    def sent(self) -> None:
        """See `models.Observer`."""
        if self._on_launch is not None:
            self._on_launch()

    def answered(self, status: int, readings: Sequence[LimitReading]) -> None:
        """See `models.Observer`."""

    def first_token(self) -> None:
        """See `models.Observer`."""
        if self._on_first_token is not None:
            self._on_first_token()


class Launch:
    """One attempt under way: what it reserved, its lease, and what it turned out to cost."""

    def __init__(self, estimate: Usage) -> None:
        self.estimate = estimate
        self.spent = Usage()
        self.lease: Lease | None = None

    def answered(self, reply: ModelReply) -> None:
        """The provider answered: settle to what it says."""
        self.spent = reply.usage
        if self.lease is not None:
            self.lease.settle(reply.usage.tokens)

    def failed(self, error: ModelError) -> None:
        """The attempt failed: what may have been paid counts with its estimate."""
        if error.maybe_paid:
            self.spent = self.estimate
        if self.lease is not None and isinstance(error, RateLimitedError):
            self.lease.rate_limited(error.retry_after)


def fault_of(error: TfgrpoError, kind: FaultKind) -> Fault:
    """An error as data."""
    return Fault(kind, error.kind, error.message, error.retryable)
