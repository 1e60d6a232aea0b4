"""One paid call: admitted, journaled before it is sent and before it is used, retried outside its slot.

The only place that talks to a model. A logical call has a key ("practice/0003/t17/0x5"); its attempts are
numbered. A call that the journal holds as completed is answered from there and costs nothing.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, NoReturn, TypeVar

import anyio

from tfgrpo.config import Config
from tfgrpo.dispatch.admission import Admission, Lease
from tfgrpo.dispatch.budget import Budget
from tfgrpo.dispatch.provider import Provider
from tfgrpo.engine.records import SingleRequests
from tfgrpo.errors import (
    FATAL_MODEL_ERRORS,
    BudgetError,
    ConnectError,
    InterruptedRunError,
    JournalError,
    ModelError,
    RateLimitedError,
    RunStoppedError,
    TfgrpoError,
)
from tfgrpo.events import CallFinished, Hooks
from tfgrpo.journal import CallState, Journal
from tfgrpo.models import GroupRequestUnsupportedError, Model
from tfgrpo.models.deadline import Deadline
from tfgrpo.types import Fault, FaultKind, ModelReply, ModelRequest, Role, Usage

T = TypeVar("T")

#: A provider that answers nothing but 429 to one call, asks to wait, or is down for this long (seconds) stops the run.
PATIENCE = 1800.0
#: The same for one that cannot be reached and has answered nothing yet: rather a wrong address than an outage.
NEVER_REACHED = 30.0
#: How long (seconds) calls in flight may still finish once the run has to stop.
DRAIN = 30.0

BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 30.0

_RUNS = itertools.count()


class _Watch(NamedTuple):
    """Who wants to know of the attempts of a call: see `Calls.complete`."""

    launched: Callable[[], None] | None
    first_token: Callable[[], None] | None
    abandoned: Callable[[], ModelError | None] | None


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
        self._attempts = config.limits.attempts
        self._hooks = hooks
        self._run = next(_RUNS)
        self._jitter = random.Random(config.run.seed)
        shared: dict[int, Provider] = {}
        self._upstreams: dict[Role, Provider] = {}
        for role, model in models.items():
            upstream = shared.get(id(admissions[role]))
            if upstream is None or upstream.model is not model:
                endpoint = config.model.role(role)
                upstream = shared[id(admissions[role])] = Provider(model, admissions[role], endpoint)
            self._upstreams[role] = upstream
        self._single = {
            role for role in models if journal.get("single requests", role.value, SingleRequests) is not None
        }
        self._in_flight = 0
        self._halted: RunStoppedError | None = None
        # What precedes a launch ends with a halt; what is in flight has a while to finish.
        self._launching = Deadline()
        self._flying = Deadline()
        self._drained = anyio.Event()
        # In the order in which they are shown.
        self._waiting = Counter({"disk full": 0, "provider down": 0})

    def count_open_intents(self) -> None:
        """Charge the budget with what an earlier engine had in flight when it ended: it may have been paid."""
        for role, request in self._journal.left_open():
            self.budget.spent += self._upstreams[role].expected(role, request)

    def group_limit(self, role: Role) -> int | None:
        """How many answers one request of this role may ask for; None where there is no known bound.

        What the endpoint refused once in this run it is not asked again after a resume: the requests would differ.
        """
        limit = self._upstreams[role].model.group_limit
        return 1 if role in self._single else limit

    def waits(self) -> dict[str, int]:
        """How many calls wait for something else than an admission, by what for."""
        return {"budget": self.budget.waiting} | self._waiting

    def halt(self, reason: TfgrpoError) -> RunStoppedError:
        """Launch nothing more; calls in flight may finish and are kept; then every caller gets the error.

        The first reason stays; the error that carries it is returned.
        """
        if self._halted is None:
            self._halted = RunStoppedError(reason)
            self._flying.cut(DRAIN)
            self._launching.cut(0.0)
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
        abandoned: Callable[[], ModelError | None] | None = None,
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
            abandoned: why a cancelled call is given up while the run goes on; None or nobody to ask: it is not.

        Raises:
            ModelError: all attempts failed, or the failure is of a kind that no attempt can mend.
            RunStoppedError: the budget is spent, the provider refuses the key or is down, or a signal came;
                calls in flight were given time to finish.
            JournalMismatchError: the journal holds another request under this key.
            JournalError: nothing can be made durable.

        Cancellation: a waiting call leaves the queue. A call in flight is aborted and charged as possibly paid; its
            intent stays open in the journal, unless `abandoned` says why it failed.
        """
        last: CallState | None = self._journal.last(key, request)
        if last is not None and last.reply is not None:
            if on_first_token is not None:
                on_first_token()
            return last.reply
        watch = _Watch(on_launch, on_first_token, abandoned)
        upstream = self._upstreams[role]
        attempt = 0 if last is None else last.attempt + 1
        failures = 0
        limited_since: float | None = None
        while True:
            trying = upstream.breaker.is_open and await self._counted("provider down", upstream.breaker.wait)
            try:
                return await self._attempt(key, attempt, role, request, priority, stream, watch)
            except ModelError as error:
                now = anyio.current_time()
                outage = upstream.breaker.is_open
                upstream.breaker.failed(error, now, trial=trying)
                attempt += 1
                priority = min(priority, 0) - 1  # what was started is finished first
                if isinstance(error, RateLimitedError):
                    # 429s are the provider pacing us, not failures: the admission pauses, nothing is charged.
                    if on_limited is not None:
                        on_limited()
                    limited_since = now if limited_since is None else limited_since
                    if now - limited_since + (error.retry_after or 0.0) > PATIENCE:
                        await self._stop(error)
                    continue
                limited_since = None
                if isinstance(error, FATAL_MODEL_ERRORS):
                    await self._stop(error)
                if isinstance(error, GroupRequestUnsupportedError) and self.group_limit(role) == 1:
                    await self._journal.record("single requests", role.value, SingleRequests(role))
                    self._single.add(role)
                if not error.retryable:
                    raise
                # While the provider is down it is not this call that fails, unless nothing ever got through.
                failures += not (outage and upstream.worked)
                dead = isinstance(error, ConnectError) and not upstream.worked
                patience = NEVER_REACHED if dead else PATIENCE
                if upstream.breaker.down_for(now) > patience or (error.retry_after or 0.0) > PATIENCE:
                    await self._stop(error)
                if failures >= self._attempts:
                    if isinstance(error, ConnectError):
                        await self._stop(error)  # an endpoint that is down fails every task alike
                    raise
                await self._pause(upstream, max(failures, 1), error)
            except BaseException:
                if trying:
                    upstream.breaker.gave_up()
                raise

    async def _attempt(
        self,
        key: str,
        attempt: int,
        role: Role,
        request: ModelRequest,
        priority: int,
        stream: bool,
        watch: _Watch,
    ) -> ModelReply:
        """One attempt: slot, budget, intent, exchange, outcome."""
        if self._halted is not None:
            await self._stop(self._halted.reason)
        upstream = self._upstreams[role]
        if self._journal.stalled is not None:
            await self._ready()
        expected = upstream.expected(role, request)
        lease = upstream.admission.slot(
            priority=priority,
            run=self._run,
            input_tokens=expected.input_tokens,
            output_tokens=expected.output_tokens,
        )
        lease.on_sent, lease.on_first_token = watch.launched, watch.first_token
        upstream.entered()
        try:
            if not lease.enter():
                await self._unless_halted(lease.wait)
            most = upstream.most(expected, request)
            if not self.budget.try_reserve(most):
                await self._reserve(most)
            spent = Usage()
            self._in_flight += 1
            try:
                await self._journal.intend(key, attempt, role, request)
                if self._halted is not None:
                    await self._unsent(key, attempt, self._halted)
                spent = expected  # from here on it may be paid, whatever happens
                try:
                    reply = await self._send(upstream, key, request, lease, stream)
                except ModelError as error:
                    upstream.ended(lease, error)
                    spent = expected if error.maybe_paid else Usage()
                    fault = fault_of(error, FaultKind.MODEL)
                    await self._journal.fail(key, attempt, fault, maybe_paid=error.maybe_paid, usage=spent)
                    raise
                except anyio.get_cancelled_exc_class():
                    if watch.abandoned is not None and (given_up := watch.abandoned()) is not None:
                        fault = fault_of(given_up, FaultKind.MODEL)
                        with anyio.CancelScope(shield=True):
                            await self._journal.fail(key, attempt, fault, maybe_paid=True, usage=spent)
                    raise
                # The provider's place must not wait for our disk.
                lease.done((reply.usage.input_tokens, reply.usage.output_tokens))
                spent = reply.usage
                await self._journal.complete(key, attempt, reply)
            except JournalError as error:
                self.halt(error)
                raise
            finally:
                self._in_flight -= 1
                self.budget.settle(most, spent)
                if self._halted is not None and self._in_flight == 0:
                    self._drained.set()
        finally:
            lease.leave()
            upstream.left()
        upstream.answered(role, request, reply)
        self._hooks.emit(CallFinished(key, reply.usage, self.budget.spent))
        return reply

    async def _unsent(self, key: str, attempt: int, halted: RunStoppedError) -> NoReturn:
        """The halt came while the intent was on its way to the disk: nothing is sent, so nothing was paid."""
        fault = fault_of(halted.reason, FaultKind.MODEL)
        await self._journal.fail(key, attempt, fault, maybe_paid=False)
        raise halted

    async def _send(
        self, upstream: Provider, key: str, request: ModelRequest, lease: Lease, stream: bool
    ) -> ModelReply:
        """The exchange itself; once the run has to stop it has `DRAIN` seconds left, and its intent stays open."""
        try:
            with self._flying.watch():
                return await upstream.model.complete(request, key=key, observer=lease, stream=stream)
        except TimeoutError:
            if self._halted is None:
                raise  # not ours, and no model of ours raises it
            raise self.halt(InterruptedRunError("The call was cut off.")) from None

    async def _reserve(self, most: Usage) -> None:
        """Wait for calls in flight to settle; a budget that cannot hold the call stops the run."""
        try:
            await self._unless_halted(lambda: self.budget.reserve(most))
        except BudgetError as error:
            await self._stop(error)

    async def _unless_halted(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Await what must precede a launch; a halt ends the wait."""
        if self._halted is None:
            try:
                with self._launching.watch():
                    got = await wait()
            except TimeoutError:
                pass
            else:
                if self._halted is None:
                    return got
        return await self._stop(InterruptedRunError("The run was halted."))

    async def _counted(self, what: str, wait: Callable[[], Awaitable[T]]) -> T:
        """The same, counted for `waits`."""
        self._waiting[what] += 1
        try:
            return await self._unless_halted(wait)
        finally:
            self._waiting[what] -= 1

    async def _stop(self, reason: TfgrpoError) -> NoReturn:
        """Halt, let what is in flight finish within the bound, and raise."""
        stopped = self.halt(reason)
        with anyio.move_on_after(DRAIN):
            await self._drained.wait()
        raise stopped

    async def _pause(self, upstream: Provider, failures: int, error: ModelError) -> None:
        """Back off outside the slot: full jitter, never less than what the provider asked for, within the allowance."""
        longest = min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0**failures)
        seconds = max(error.retry_after or 0.0, self._jitter.uniform(0, longest))
        allowance = upstream.paid_retries if error.maybe_paid else upstream.retries

        async def wait() -> None:
            await anyio.sleep(seconds)
            upstream.check_idle()
            await allowance.take()

        await self._counted(f"retry: {error.kind}", wait)

    async def _ready(self) -> None:
        """The disk is full, or refused: nothing is launched before it is well again."""
        try:
            await self._counted("disk full", self._journal.ready)
        except JournalError as error:
            self.halt(error)
            raise


def fault_of(error: TfgrpoError, kind: FaultKind) -> Fault:
    """An error as data."""
    return Fault(kind, error.kind, error.message, error.retryable)
