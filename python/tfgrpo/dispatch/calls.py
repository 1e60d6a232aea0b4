"""One paid call: admitted, durable before it is sent and before it is used, retried outside its slot.

The only place that talks to a model. A call makes one effect, or, as an envelope, the effects of several members
whose requests are equal: one exchange with n answers, each member's effect completed by its own choice. An effect
that the store holds as completed is answered from there and costs nothing.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn, TypeVar

import anyio
import anyio.abc
import msgspec

from tfgrpo.dispatch.budget import Budget
from tfgrpo.dispatch.effects import NOBODY, Watcher, fault_of, model_effect
from tfgrpo.dispatch.halt import Halt
from tfgrpo.dispatch.provider import Provider
from tfgrpo.dispatch.span import Span, span_of
from tfgrpo.errors import (
    FATAL_MODEL_ERRORS,
    BudgetError,
    ConnectError,
    ForeignModelError,
    GroupRequestUnsupportedError,
    InterruptedRunError,
    JournalError,
    JournalMismatchError,
    ModelError,
    RateLimitedError,
    RunStoppedError,
    TfgrpoError,
    UsageError,
)
from tfgrpo.events import Hooks
from tfgrpo.keys import Key
from tfgrpo.protocols import Effect, Store, Ticket
from tfgrpo.tasks import gather_ordered
from tfgrpo.types import (
    EffectStatus,
    FaultKind,
    ModelReply,
    ModelRequest,
    Role,
    Struct,
    Usage,
)

T = TypeVar("T")

#: A provider that answers nothing but 429 to one call, asks to wait, or is down for this long (seconds) stops the run.
PATIENCE = 1800.0
#: The same for one that cannot be reached and has answered nothing yet: rather a wrong address than an outage.
NEVER_REACHED = 30.0
#: How long (seconds) calls in flight may still finish once the run has to stop.
DRAIN = 30.0

BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 30.0

_RUNS = itertools.count()
_NOTHING = Usage()


class SingleRequests(Struct, frozen=True):
    """The endpoint of a role refused a group request: its calls ask for one answer each from then on."""

    role: Role


class Dispatcher:
    """Every effect of a run goes through here.

    Args:
        store: where intents and completions become durable.
        providers: where the calls of each role go; roles that share an endpoint share the object.
        budget: the account of the run.
        hooks: receive `EffectStarted` and `EffectFinished`.
        attempts: how often one call is tried before it fails.
        seed: of the run; draws the jitter, and is the source of every call's sampling seed.
    """

    def __init__(
        self,
        store: Store,
        providers: Mapping[Role, Provider],
        budget: Budget,
        hooks: Hooks,
        *,
        attempts: int = 6,
        seed: int = 0,
    ) -> None:
        self.store = store
        self.budget = budget
        self.seed = seed
        self.hooks = hooks
        self._providers = providers
        self._attempts = attempts
        self._run = next(_RUNS)
        self._jitter = random.Random(seed)
        self._single: set[Role] = set()
        #: Where exchanges run that several attempts share: one attempt that gives up must not end them.
        self.tasks: anyio.abc.TaskGroup
        self.halted = Halt()
        # In the order in which they are shown.
        self._waiting = Counter({"disk full": 0, "provider down": 0})

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Dispatcher]:
        """Take over what an earlier engine left, and run what members of a group share, for the length of a block.

        Single requests are remembered; calls that were in flight may have been paid, and are charged.

        Raises:
            JournalError: the store cannot be read.
            Exception: what the block raises, as it is.

        Cancellation: ends shared exchanges.
        """
        for role in self._providers:
            if await self.store.get("single requests", Key(role.value), SingleRequests) is not None:
                self._single.add(role)
        async for left in self.store.left_open():
            provider = self._providers.get(left.role)
            if provider is not None and isinstance(left.request, ModelRequest):
                self.budget.spent += provider.expected(left.role, left.request)
        try:
            async with anyio.create_task_group() as self.tasks:
                yield self
                self.tasks.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def group_limit(self, role: Role) -> int | None:
        """How many answers one request of this role may ask for; None where there is no known bound."""
        return 1 if role in self._single else self._provider(role).model.group_limit

    def waits(self) -> dict[str, int]:
        """How many calls wait for something else than an admission, by what for."""
        return {"budget": self.budget.waiting} | self._waiting

    def halt(self, reason: TfgrpoError) -> RunStoppedError:
        """Launch nothing more; calls in flight may finish and are kept; then every caller gets an error of its own.

        The first reason stays; an error that carries it is returned.
        """
        return self.halted.because(reason)

    # --- asking ------------------------------------------------------------------------------------------

    async def ask(
        self,
        key: Key,
        role: Role,
        request: ModelRequest,
        *,
        priority: int = 0,
        watcher: Watcher = NOBODY,
        stream: bool = False,
    ) -> ModelReply:
        """Answer a call from the store, or make it, with retries.

        Args:
            key: names the call; always with the same request.
            role: whose model, limits and account.
            request: what is asked; without a seed it gets the one that follows from the key.
            priority: smaller goes first among calls that wait for a slot.
            watcher: told of the call's attempts.
            stream: let the answer come in pieces, so that its first token is seen early.

        Raises:
            ModelError: all attempts failed, or the failure is of a kind that no attempt can mend.
            RunStoppedError: the budget is spent, the provider refuses the key or is down, or a signal came;
                calls in flight were given time to finish.
            JournalMismatchError: the store holds another request under this key.
            JournalError: nothing can be made durable.
            UsageError: no model has this role.

        Cancellation: a waiting call leaves the queue. A call in flight is aborted and charged as possibly paid; its
            intent stays open in the store, unless the watcher says why it failed.
        """
        effect = model_effect(key, role, request)
        known = await self.replay(effect)
        if known is not None:
            return known
        replies = await self.send([effect], request, priority=priority, watcher=watcher, stream=stream)
        return replies[0]

    async def replay(self, effect: Effect) -> ModelReply | None:
        """The reply to a model effect that is completed in the store; None where it has to be asked for.

        Raises:
            JournalMismatchError: the store holds another request under its key.
            JournalError: the store cannot be read.
        """
        known = await self.store.find(effect.key, ModelReply)
        if known is None:
            return None
        if known.digest != effect.digest:
            raise JournalMismatchError(
                f"The call {effect.key} was made before with another request, so this would not be the same run. In "
                "a run: resume with the configuration, data, prompts and version that started it, or start a new "
                "one. In a job of your own: give each request its own key."
            )
        return known.result if known.status is EffectStatus.COMPLETED else None

    async def send(
        self,
        effects: Sequence[Effect],
        request: ModelRequest,
        *,
        priority: int = 0,
        watcher: Watcher = NOBODY,
        stream: bool = False,
    ) -> list[ModelReply]:
        """Make one call for effects that are not completed, with retries; errors and cancellation as in `ask`.

        Args:
            effects: of one role and one digest. Several share the call: each asks for one answer.
            request: what is asked for one of them; without a seed it gets that of the first effect.
            priority: as in `ask`.
            watcher: as in `ask`.
            stream: as in `ask`.

        Returns:
            A reply for each effect, in order, the usage shared out among them.
        """
        role = effects[0].role
        provider = self._provider(role)
        n = request.n * len(effects)
        seed = effects[0].key.seed(self.seed) if request.seed is None else request.seed
        if n != request.n or seed != request.seed:
            request = msgspec.structs.replace(request, n=n, seed=seed)
        failures = 0
        limited_since: float | None = None
        while True:
            watcher.queued()
            trying = provider.breaker.is_open and await self._counted("provider down", provider.breaker.wait)
            try:
                return await self._attempt(effects, provider, request, priority, stream, watcher)
            except ModelError as error:
                now = anyio.current_time()
                outage = provider.breaker.is_open
                provider.breaker.failed(error, now, trial=trying)
                priority = min(priority, 0) - 1  # what was started is finished first
                if isinstance(error, RateLimitedError):
                    # 429s are the provider pacing us, not failures: the admission pauses, nothing is charged.
                    limited_since = now if limited_since is None else limited_since
                    if now - limited_since + (error.retry_after or 0.0) > PATIENCE:
                        await self.halted.stop(error)
                    continue
                limited_since = None
                if isinstance(error, FATAL_MODEL_ERRORS):
                    await self.halted.stop(error)
                if isinstance(error, GroupRequestUnsupportedError) and self.group_limit(role) == 1:
                    self._single.add(role)
                    await self.store.record("single requests", Key(role.value), SingleRequests(role))
                if not error.retryable:
                    raise
                # While the provider is down it is not this call that fails, unless nothing ever got through.
                failures += not (outage and provider.worked)
                dead = isinstance(error, ConnectError) and not provider.worked
                patience = NEVER_REACHED if dead else PATIENCE
                if provider.breaker.down_for(now) > patience or (error.retry_after or 0.0) > PATIENCE:
                    await self.halted.stop(error)
                if failures >= self._attempts:
                    if isinstance(error, ConnectError):
                        await self.halted.stop(error)  # an endpoint that is down fails every task alike
                    raise
                await self._pause(provider, max(failures, 1), error)
            except BaseException:
                if trying:
                    provider.breaker.gave_up()
                raise

    async def _attempt(
        self,
        effects: Sequence[Effect],
        provider: Provider,
        request: ModelRequest,
        priority: int,
        stream: bool,
        watcher: Watcher,
    ) -> list[ModelReply]:
        """One attempt: slot, budget, intents, exchange, outcomes."""
        store, halted, role = self.store, self.halted, effects[0].role
        if halted.reason is not None or store.stalled is not None:
            await self.may_launch()
        expected = provider.expected(role, request)
        lease = provider.admission.slot(
            priority=priority,
            run=self._run,
            input_tokens=expected.input_tokens,
            output_tokens=expected.output_tokens,
        )
        lease.on_sent, lease.on_first_token = watcher.launched, watcher.first_token
        span = span_of(self.hooks, effects[0], lease)
        provider.entered()
        try:
            if not lease.enter():
                await halted.unless(lease.wait)
            most = provider.most(expected, request)
            if not self.budget.try_reserve(most):
                await self._reserve(most)
            spent = _NOTHING
            halted.launched()
            try:
                tickets = await store.intend(effects)
                if span is not None:
                    span.started(tickets[0].attempt)
                if halted.reason is not None:
                    await self.unsent(tickets)
                spent = expected  # from here on it may be paid, whatever happens
                try:
                    with halted.flight():
                        reply = await provider.model.complete(
                            request, key=effects[0].key.text, observer=lease, stream=stream
                        )
                    if len(reply.choices) != request.n:
                        raise _miscounted(reply, request)  # noqa: TRY301 - ends as any failure of the call
                except ModelError as error:
                    provider.ended(lease, error)
                    spent = expected if error.maybe_paid else _NOTHING
                    await self._failed(tickets, error, spent, span)
                    raise
                except anyio.get_cancelled_exc_class():
                    if (given_up := watcher.abandoned()) is not None:
                        with anyio.CancelScope(shield=True):
                            await self._failed(tickets, given_up, spent, span)
                    raise
                except TfgrpoError:
                    raise
                except Exception as raised:  # a model of a stranger may raise anything
                    if isinstance(raised, TimeoutError) and halted.reason is not None:
                        raise self.halt(InterruptedRunError("The call was cut off.")) from None
                    foreign = _foreign(raised)
                    await self._failed(tickets, foreign, spent, span)
                    raise foreign from raised
                # The provider's place must not wait for our disk.
                lease.done((reply.usage.input_tokens, reply.usage.output_tokens))
                spent = reply.usage
                if len(tickets) == 1:
                    replies = [reply]
                    await store.complete(tickets[0], reply, spent)
                else:
                    replies = await self._share_out(tickets, reply)
            except JournalError as error:
                self.halt(error)
                raise
            finally:
                halted.landed()
                self.budget.settle(most, spent)
        finally:
            lease.leave()
            provider.left()
        provider.answered(role, request, reply)
        if span is not None:
            span.ended(spent, self.budget.spent)
        return replies

    # --- what one attempt does to the store --------------------------------------------------------------

    async def _share_out(self, tickets: Sequence[Ticket], reply: ModelReply) -> list[ModelReply]:
        """Make every member's own choice durable, with its share of the usage."""
        shares = reply.usage.split(len(tickets))
        replies = [
            ModelReply((choice,), usage, reply.model)
            for choice, usage in zip(reply.choices, shares, strict=True)
        ]
        await gather_ordered(
            zip(tickets, replies, strict=True), lambda own: self.store.complete(*own, own[1].usage)
        )
        return replies

    async def _failed(
        self, tickets: Sequence[Ticket], error: ModelError, spent: Usage, span: Span | None
    ) -> None:
        """Make the failure of every member durable, each with its share of what may have been paid."""
        fault = fault_of(error, FaultKind.MODEL)
        # All are on their way before the first is waited for: a cancellation meanwhile leaves none open.
        await gather_ordered(
            zip(tickets, spent.split(len(tickets)), strict=True),
            lambda own: self.store.fail(own[0], fault, maybe_paid=error.maybe_paid, usage=own[1]),
        )
        if span is not None:
            span.ended(spent, self.budget.spent, fault)

    async def unsent(self, tickets: Sequence[Ticket]) -> NoReturn:
        """End intents that were on their way to the disk as the halt came: nothing is sent, so nothing was paid.

        Raises:
            RunStoppedError: always.
        """
        reason = self.halted.reason or InterruptedRunError("The run was halted.")
        fault = fault_of(reason, FaultKind.MODEL)
        await gather_ordered(tickets, lambda ticket: self.store.fail(ticket, fault, maybe_paid=False))
        # This effect is not under way; what is may finish, or the first error would end it.
        self.halted.landed()
        try:
            await self.halted.stop(reason)
        finally:
            self.halted.launched()

    # --- waiting -----------------------------------------------------------------------------------------

    async def may_launch(self) -> None:
        """Return where an effect may be launched: the run is not halted, and the disk takes data.

        Raises:
            RunStoppedError: the run is halted.
            JournalError: nothing can be made durable any more.
        """
        if self.halted.reason is not None:
            await self.halted.stop(self.halted.reason)
        if self.store.stalled is not None:
            try:
                await self._counted("disk full", self.store.ready)
            except JournalError as error:
                self.halt(error)
                raise

    def _provider(self, role: Role) -> Provider:
        try:
            return self._providers[role]
        except KeyError:
            known = ", ".join(sorted(self._providers))
            raise UsageError(f"No model has the role {role!r}; there is one for: {known}.") from None

    async def _reserve(self, most: Usage) -> None:
        """Wait for calls in flight to settle; a budget that cannot hold the call stops the run."""
        try:
            await self.halted.unless(lambda: self.budget.reserve(most))
        except BudgetError as error:
            await self.halted.stop(error)

    async def _counted(self, what: str, wait: Callable[[], Awaitable[T]]) -> T:
        """Await what must precede a launch, counted for `waits`."""
        self._waiting[what] += 1
        try:
            return await self.halted.unless(wait)
        finally:
            self._waiting[what] -= 1

    async def _pause(self, provider: Provider, failures: int, error: ModelError) -> None:
        """Back off outside the slot: full jitter, never less than what the provider asked for, within the allowance."""
        longest = min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0**failures)
        seconds = max(error.retry_after or 0.0, self._jitter.uniform(0, longest))
        allowance = provider.paid_retries if error.maybe_paid else provider.retries

        async def wait() -> None:
            await anyio.sleep(seconds)
            provider.check_idle()
            await allowance.take()

        await self._counted(f"retry: {error.kind}", wait)


def _foreign(error: Exception) -> ForeignModelError:
    """Something that a model raised and that is no error of ours."""
    return ForeignModelError(
        f"The model raised {type(error).__name__}: {error}. A model raises errors of tfgrpo.errors only, so this is a "
        "bug in it; the call may have been paid.",
        maybe_paid=True,
    )


def _miscounted(reply: ModelReply, request: ModelRequest) -> ForeignModelError:
    """A reply with another number of answers than were asked for."""
    return ForeignModelError(
        f"The model gave {len(reply.choices)} answers where {request.n} were asked for, a bug in it; the call may have "
        "been paid.",
        maybe_paid=True,
    )
