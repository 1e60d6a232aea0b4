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
from typing import Any, NoReturn, TypeVar

import anyio
import anyio.abc
import msgspec

from tfgrpo.dispatch.admission import Lease
from tfgrpo.dispatch.budget import Budget
from tfgrpo.dispatch.provider import Provider
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
    ToolError,
    UsageError,
)
from tfgrpo.events import EffectFinished, EffectStarted, Hooks
from tfgrpo.journal import digest_of
from tfgrpo.keys import Key
from tfgrpo.models.deadline import Deadline
from tfgrpo.protocols import Effect, Store, Ticket, Tool
from tfgrpo.tasks import gather_ordered
from tfgrpo.types import (
    EffectKind,
    EffectStatus,
    Fault,
    FaultKind,
    ModelReply,
    ModelRequest,
    Role,
    Struct,
    ToolRequest,
    ToolResult,
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


class Watcher:
    """Follows one call through its attempts. Override the methods that are of interest."""

    def launched(self) -> None:
        """An attempt is really sent."""

    def first_token(self) -> None:
        """The first piece of the answer is there."""

    def queued(self) -> None:
        """The call waits for a slot, for money, or for the provider to be well again."""

    def abandoned(self) -> ModelError | None:
        """Why a cancelled call is given up while the run goes on; None: it is not."""
        return None


_NOBODY = Watcher()


def request_digest(request: msgspec.Struct) -> bytes:
    """The 32 bytes that a request is known by.

    Raises:
        UsageError: it has no JSON encoding.
    """
    try:
        return digest_of(request)
    except JournalError as error:
        raise UsageError(f"A request cannot be kept, so it is not sent. {error.message}") from None


def model_effect(key: Key, role: Role, request: ModelRequest, digest: bytes | None = None) -> Effect:
    """The effect of one model call.

    Args:
        key: names it.
        role: whose call it is.
        request: what is asked.
        digest: of the request, where it is known already.

    Raises:
        UsageError: the request has no JSON encoding.
    """
    kind = EffectKind.JUDGE if role is Role.JUDGE else EffectKind.MODEL
    return Effect(key, kind, role, request_digest(request) if digest is None else digest, request)


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
        self._in_flight = 0
        self._halted: TfgrpoError | None = None
        # What precedes a launch ends with a halt; what is in flight has a while to finish.
        self._launching = Deadline()
        self._flying = Deadline()
        self._drained = anyio.Event()
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
        if self._halted is None:
            self._halted = reason
            self._flying.cut(DRAIN)
            self._launching.cut(0.0)
            if self._in_flight == 0:
                self._drained.set()
        return RunStoppedError(self._halted.again())

    # --- asking ------------------------------------------------------------------------------------------

    async def ask(
        self,
        key: Key,
        role: Role,
        request: ModelRequest,
        *,
        priority: int = 0,
        watcher: Watcher = _NOBODY,
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
        watcher: Watcher = _NOBODY,
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
                        await self._stop(error)
                    continue
                limited_since = None
                if isinstance(error, FATAL_MODEL_ERRORS):
                    await self._stop(error)
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
                    await self._stop(error)
                if failures >= self._attempts:
                    if isinstance(error, ConnectError):
                        await self._stop(error)  # an endpoint that is down fails every task alike
                    raise
                await self._pause(provider, max(failures, 1), error)
            except BaseException:
                if trying:
                    provider.breaker.gave_up()
                raise

    async def use(
        self, key: Key, tool: Tool, arguments: Mapping[str, Any], *, watcher: Watcher = _NOBODY
    ) -> str:
        """Use a tool, or take what it gave from the store.

        Args:
            key: names the use; always with the same arguments.
            tool: runs once for each key, unless it failed or was cut off.
            arguments: JSON values.
            watcher: told when it begins.

        Raises:
            ToolError: the tool raised, or gave no text.
            UsageError: the arguments have no JSON encoding.
            RunStoppedError, JournalError: the run cannot go on.

        Cancellation: the intent stays open: the use counts as perhaps done. So it does where the watcher says why it
            was given up, and then the intent is closed.
        """
        request = ToolRequest(tool.name, dict(arguments))
        effect = Effect(key, EffectKind.TOOL, Role.ROLLOUT, request_digest(request), request)
        known = await self.store.find(key, ToolResult)
        if known is not None and known.status is EffectStatus.COMPLETED:
            return str(known.result.text)
        if self._halted is not None:
            await self._stop(self._halted)
        if self.store.stalled is not None:
            await self._ready()
        self._in_flight += 1
        try:
            ticket = (await self.store.intend([effect]))[0]
            if self._halted is not None:
                await self._unsent([ticket])
            watcher.launched()
            try:
                text = await run_tool(tool, request.arguments)
            except ToolError as error:
                await self._fail([ticket], fault_of(error, FaultKind.TOOL), maybe_paid=True)
                raise
            except anyio.get_cancelled_exc_class():
                await self._given_up([ticket], watcher, FaultKind.TOOL, _NOTHING)
                raise
            await self.store.complete(ticket, ToolResult(text), _NOTHING)
        except JournalError as error:
            self.halt(error)
            raise
        finally:
            self._in_flight -= 1
            if self._halted is not None and self._in_flight == 0:
                self._drained.set()
        return text

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
        if self._halted is not None:
            await self._stop(self._halted)
        store, role = self.store, effects[0].role
        if store.stalled is not None:
            await self._ready()
        expected = provider.expected(role, request)
        lease = provider.admission.slot(
            priority=priority,
            run=self._run,
            input_tokens=expected.input_tokens,
            output_tokens=expected.output_tokens,
        )
        lease.on_sent, lease.on_first_token = watcher.launched, watcher.first_token
        span = Attempt(self.hooks, effects, lease, anyio.current_time())
        provider.entered()
        try:
            if not lease.enter():
                await self._unless_halted(lease.wait)
            most = provider.most(expected, request)
            if not self.budget.try_reserve(most):
                await self._reserve(most)
            spent = _NOTHING
            self._in_flight += 1
            try:
                tickets = await store.intend(effects)
                span.started(tickets[0].attempt)
                if self._halted is not None:
                    await self._unsent(tickets)
                spent = expected  # from here on it may be paid, whatever happens
                try:
                    reply = await self._exchange(provider, effects[0].key, request, lease, stream)
                except ModelError as error:
                    provider.ended(lease, error)
                    spent = expected if error.maybe_paid else _NOTHING
                    fault = fault_of(error, FaultKind.MODEL)
                    await self._fail(tickets, fault, maybe_paid=error.maybe_paid, usage=spent)
                    span.failed(fault, spent, self.budget.spent)
                    raise
                except anyio.get_cancelled_exc_class():
                    fault = await self._given_up(tickets, watcher, FaultKind.MODEL, spent)
                    if fault is not None:
                        span.failed(fault, spent, self.budget.spent)
                    raise
                # The provider's place must not wait for our disk.
                lease.done((reply.usage.input_tokens, reply.usage.output_tokens))
                spent = reply.usage
                replies = await self._complete(tickets, reply)
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
            provider.left()
        provider.answered(role, request, reply)
        span.finished(reply.usage, self.budget.spent)
        return replies

    # --- what one attempt does to the store --------------------------------------------------------------

    async def _complete(self, tickets: Sequence[Ticket], reply: ModelReply) -> list[ModelReply]:
        """Make every member's own choice durable."""
        if len(tickets) == 1:
            await self.store.complete(tickets[0], reply, reply.usage)
            return [reply]
        shares = reply.usage.split(len(tickets))
        replies = [
            ModelReply((choice,), usage, reply.model)
            for choice, usage in zip(reply.choices, shares, strict=True)
        ]
        await gather_ordered(
            zip(tickets, replies, strict=True), lambda own: self.store.complete(*own, own[1].usage)
        )
        return replies

    async def _fail(
        self, tickets: Sequence[Ticket], fault: Fault, *, maybe_paid: bool, usage: Usage = _NOTHING
    ) -> None:
        """Make the failure of every member durable; all are on their way before the first is waited for."""
        await gather_ordered(
            zip(tickets, usage.split(len(tickets)), strict=True),
            lambda own: self.store.fail(own[0], fault, maybe_paid=maybe_paid, usage=own[1]),
        )

    async def _given_up(
        self, tickets: Sequence[Ticket], watcher: Watcher, kind: FaultKind, usage: Usage
    ) -> Fault | None:
        """Close the intents of what was cancelled while the run goes on; None where the whole run is cancelled."""
        reason = watcher.abandoned()
        if reason is None:
            return None
        fault = fault_of(reason, kind)
        with anyio.CancelScope(shield=True):
            await self._fail(tickets, fault, maybe_paid=True, usage=usage)
        return fault

    async def _unsent(self, tickets: Sequence[Ticket]) -> NoReturn:
        """The halt came while the intent was on its way to the disk: nothing is sent, so nothing was paid."""
        assert self._halted is not None  # noqa: S101 - the caller looked
        fault = fault_of(self._halted, FaultKind.MODEL)
        await self._fail(tickets, fault, maybe_paid=False)
        raise self.halt(self._halted)

    async def _exchange(
        self, provider: Provider, key: Key, request: ModelRequest, lease: Lease, stream: bool
    ) -> ModelReply:
        """The exchange itself; once the run has to stop it has `DRAIN` seconds left, and its intent stays open."""
        try:
            with self._flying.watch():
                reply = await provider.model.complete(request, key=key.text, observer=lease, stream=stream)
        except TfgrpoError:
            raise
        except TimeoutError:
            if self._halted is None:
                raise  # not ours, and no model of ours raises it
            raise self.halt(InterruptedRunError("The call was cut off.")) from None
        except Exception as error:
            raise ForeignModelError(
                f"The model raised {type(error).__name__}: {error}. A model raises errors of tfgrpo.errors only, so "
                "this is a bug in it; the call may have been paid.",
                maybe_paid=True,
            ) from error
        if len(reply.choices) != request.n:
            raise ForeignModelError(
                f"The model gave {len(reply.choices)} answers where {request.n} were asked for, a bug in it; the "
                "call may have been paid.",
                maybe_paid=True,
            )
        return reply

    # --- waiting, and stopping ---------------------------------------------------------------------------

    def _provider(self, role: Role) -> Provider:
        try:
            return self._providers[role]
        except KeyError:
            known = ", ".join(sorted(self._providers))
            raise UsageError(f"No model has the role {role!r}; there is one for: {known}.") from None

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
        """Halt, let what is in flight finish within the bound, and raise an error of this caller's own."""
        stopped = self.halt(reason)
        with anyio.move_on_after(DRAIN):
            await self._drained.wait()
        raise stopped

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

    async def _ready(self) -> None:
        """The disk is full, or refused: nothing is launched before it is well again."""
        try:
            await self._counted("disk full", self.store.ready)
        except JournalError as error:
            self.halt(error)
            raise


class Attempt:
    """The span of one attempt: emits its start and its end, where a hook wants them."""

    __slots__ = ("_asked", "_attempt", "_effect", "_first", "_hooks", "_lease", "_sent")

    def __init__(self, hooks: Hooks, effects: Sequence[Effect], lease: Lease, asked: float) -> None:
        self._hooks = hooks
        self._effect = effects[0]
        self._lease = lease
        self._asked = self._sent = asked
        self._first: float | None = None
        self._attempt = 0
        if hooks.wants(EffectFinished):
            sent, token = lease.on_sent, lease.on_first_token

            def on_sent() -> None:
                self._sent = anyio.current_time()
                if sent is not None:
                    sent()

            def on_first_token() -> None:
                if self._first is None:
                    self._first = anyio.current_time()
                if token is not None:
                    token()

            lease.on_sent, lease.on_first_token = on_sent, on_first_token

    def started(self, attempt: int) -> None:
        """The intent is durable."""
        self._attempt = attempt
        if self._hooks.wants(EffectStarted):
            effect = self._effect
            self._hooks.emit(
                EffectStarted(
                    key=effect.key.text,
                    parent=effect.key.owner.text,
                    kind=effect.kind,
                    role=effect.role,
                    attempt=attempt,
                )
            )

    def failed(self, fault: Fault, usage: Usage, total: Usage) -> None:
        """It ended badly."""
        self._end(usage, total, fault)

    def finished(self, usage: Usage, total: Usage) -> None:
        """It ended well, and is durable."""
        self._end(usage, total, None)

    def _end(self, usage: Usage, total: Usage, fault: Fault | None) -> None:
        if not self._hooks.wants(EffectFinished):
            return
        effect = self._effect
        self._hooks.emit(
            EffectFinished(
                key=effect.key.text,
                parent=effect.key.owner.text,
                kind=effect.kind,
                role=effect.role,
                attempt=self._attempt,
                queued=self._sent - self._asked,
                first_token=None if self._first is None else self._first - self._sent,
                seconds=anyio.current_time() - self._asked,
                usage=usage,
                total=total,
                fault=fault,
            )
        )


async def run_tool(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Run a tool once, outside of any ledger.

    Raises:
        ToolError: it raised, or gave no text.
    """
    try:
        text = await tool.run(arguments)
    except TfgrpoError:
        raise
    except Exception as error:
        raise ToolError(
            f"The tool {tool.name} raised {type(error).__name__}: {error}. A failed use is text for the model; "
            "what a tool raises is a fault of the tool."
        ) from error
    if not isinstance(text, str):
        raise ToolError(f"The tool {tool.name} gave a {type(text).__name__}; a tool gives text.")
    return text


def fault_of(error: TfgrpoError, kind: FaultKind) -> Fault:
    """An error as data."""
    return Fault(kind, error.kind, error.message, error.retryable)
