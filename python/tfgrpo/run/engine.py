"""The engine as a library: admitted, durable, retried calls and attempts for batch jobs; the code that runs use."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, cast

import anyio
import anyio.to_thread

from tfgrpo.config import Endpoint, endpoint_of
from tfgrpo.dispatch import Budget, Dispatcher, Priority, fault_of
from tfgrpo.engine.context import record_prior
from tfgrpo.errors import (
    ConfigError,
    HookError,
    JournalError,
    RunStoppedError,
    TfgrpoError,
    UsageError,
)
from tfgrpo.events import Hook, Hooks, RolloutFinished, Warned
from tfgrpo.journal import Journal, MemoryStore
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.protocols import Agent, AttemptLimits, Model, Store, Tool, Verifier
from tfgrpo.rollout import AttemptScope, Deadline, DirectAgent, run_attempt
from tfgrpo.run.guests import check_guest
from tfgrpo.run.providers import Fetching, no_fetching, open_models, price_of
from tfgrpo.run.session import open_dispatcher
from tfgrpo.run.stop import StopSwitch
from tfgrpo.rundir import RUN, Header
from tfgrpo.types import Fault, FaultKind, Limits, ModelReply, ModelRequest, Price, Role, Rollout, Task, Usage

#: Requests that `map` takes from its source beyond those that can be in flight.
AHEAD = 64


class Engine:
    """Calls and attempts under rate limits and a budget, every one durable before its result is used.

    Open it with `async with`; use it from one event loop. A second engine on the same store goes on where the first
    stopped: what is completed is answered from the store, and is never paid twice.

    Args:
        model: answers the calls: a `Model` of your own; an endpoint as a mapping with the keys of `[model]`, such as
            `{"base_url": …, "name": …, "api_key_env": …}` or `{"local": "default"}`; or a mapping from role to either.
        store: a path, at which a store is made or opened; a `Store` of your own, which stays open; None keeps
            everything in memory, so that nothing outlives the engine.
        limits: of each provider.
        budget: the hard stop, over all engines on this store.
        price: of the calls of a `Model` of your own; an endpoint has its price with it.
        hooks: called with every event (`tfgrpo.events`).
        tools: that agents may call by name.
        seed: the sampling seeds of all calls follow from it.
        stop: asks the engine to launch nothing more.
        fetching: told about the download of an embedded model's weights.

    Raises:
        ConfigError: an argument is unusable.

    Cancellation: aborts calls in flight, which then count as possibly paid; all else is kept.
    """

    def __init__(
        self,
        model: Model | Mapping[str, Any] | Mapping[Role, Model | Mapping[str, Any]],
        *,
        store: Store | str | Path | None = None,
        limits: Limits | None = None,
        budget: Budget | None = None,
        price: Price | None = None,
        hooks: Iterable[Hook] = (),
        tools: Iterable[Tool] = (),
        seed: int = 0,
        stop: StopSwitch | None = None,
        fetching: Fetching = no_fetching,
    ) -> None:
        one = not isinstance(model, Mapping) or bool(model.keys() & {"base_url", "local"})
        given: Mapping[Any, Any] = dict.fromkeys(Role, model) if one else cast("Mapping[Any, Any]", model)
        if not given:
            raise ConfigError(
                "An engine needs a model; give a Model, an endpoint, or a mapping from role to one."
            )
        self._given = {_role(role): _model(entry) for role, entry in given.items()}
        self._place = store
        self._limits = limits or Limits()
        self._budget = budget or Budget()
        self._price = price
        self._hooks = Hooks(hooks)
        self._tools = {tool.name: tool for tool in tools}
        self._seed = seed
        self._stop = stop
        self._fetching = fetching
        self._stack = AsyncExitStack()
        self._dispatcher: Dispatcher | None = None
        self._asking: dict[Key, anyio.Event] = {}
        self._used = False

    async def __aenter__(self) -> Self:
        if self._used:
            raise UsageError("This engine was opened before; make a new one on the same store to go on.")
        self._used = True
        try:
            store = await self._open_store()
            models, prices = await self._open_models()
            if self._budget.usd is not None and None in prices.values():
                self._hooks.emit(
                    Warned(
                        "The budget in US dollars cannot bind: a model has no price, so its calls count as $0; give "
                        "price=tfgrpo.Price(...), or a budget in tokens."
                    )
                )
            self._dispatcher = await self._stack.enter_async_context(
                open_dispatcher(
                    store,
                    models,
                    self._hooks,
                    limits=self._limits,
                    budget=self._budget,
                    prices=prices,
                    seed=self._seed,
                    stop=self._stop,
                )
            )
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._dispatcher = None
        await self._stack.__aexit__(*exc)

    # --- what is open ------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            UsageError: the engine is not open.
        """
        return self._open().store

    @property
    def spent(self) -> Usage:
        """The cost of everything so far, that of earlier engines on this store included."""
        return self._budget.spent

    # --- work --------------------------------------------------------------------------------------------

    async def ask(
        self, key: str, request: ModelRequest, *, role: Role | str = Role.ROLLOUT, priority: int = 0
    ) -> ModelReply:
        """Answer one request: from the store, where this key is completed, else by a call with retries.

        Args:
            key: names the call in this store, for ever; always with the same request.
            request: what is asked. A request without a seed gets one that follows from the key.
            role: whose model answers.
            priority: smaller goes first among calls that wait for a slot.

        Raises:
            ModelError: the call failed for good; asking again tries again.
            RunStoppedError: budget, provider or a stop ended the engine's work; all is kept.
            JournalMismatchError: this key was used with another request.
            UsageError: the engine is not open, there is no such role, or the request cannot be kept.

        Cancellation: a call in flight is aborted and counts as possibly paid.
        """
        dispatcher = self._open()
        own, whose = Key("ask", task=key), _role(role)
        while own in self._asking:  # asked twice at once: the second is answered by the first
            await self._asking[own].wait()
        self._asking[own] = anyio.Event()
        try:
            return await dispatcher.ask(own, whose, request, priority=priority)
        finally:
            self._asking.pop(own).set()

    def map(
        self,
        requests: Iterable[tuple[str, ModelRequest]] | AsyncIterable[tuple[str, ModelRequest]],
        *,
        role: Role | str = Role.ROLLOUT,
        window: int | None = None,
    ) -> Outcomes:
        """Answer many requests; iterate over the result with `async for key, outcome in …`.

        Outcomes come as they are finished: a `ModelReply`, or a `Fault` for a call that failed for good. Requests are
        taken from the source as there is room, so a million of them need no more memory than a thousand. Calls that
        the store holds as completed come from there.

        Args:
            requests: pairs of key and request, as for `ask`.
            role: whose model answers.
            window: how many are under way at once; by default enough for `limits.concurrency`.

        Raises:
            RunStoppedError, JournalError, JournalMismatchError, UsageError: from the iteration; as in `ask`.

        Cancellation: leaving the loop launches nothing more; what is in flight ends and is kept while the engine is
            open.
        """
        self._open()
        return Outcomes(self, requests, _role(role), window or self._limits.concurrency + AHEAD)

    async def attempt(
        self,
        task: Task,
        *,
        agent: Agent | None = None,
        verifier: Verifier | None = None,
        prior: ExperienceLibrary | PromptAssembler | None = None,
        system: str = "",
        index: int = 0,
        name: str = "attempt",
        temperature: float | None = None,
        seconds: float = 1800.0,
    ) -> Rollout:
        """Attempt a task once and grade the attempt; a terminal attempt is answered from the store.

        Args:
            task: the question.
            agent: attempts it; by default one prompt, one answer.
            verifier: grades it; None leaves it without a reward.
            prior: the library in the prompt, or the assembled prompt itself.
            system: the agent's instructions; with an assembler they are its own.
            index: the number of this attempt at the task.
            name: tells apart attempts of one task with another agent, prior or temperature.
            temperature: of requests that name none.
            seconds: bounds the attempt, from its first call to its answer.

        Returns:
            The terminal record; whatever broke stands in its `fault`.

        Raises:
            RunStoppedError: budget, provider or a stop ended the engine's work; all is kept.
            JournalError: nothing can be made durable any more.
            UsageError: the engine is not open.
            ConfigError: agent or verifier is none.

        Cancellation: propagates; nothing is recorded for the attempt, and its completed calls are kept.
        """
        dispatcher = self._open()
        check_guest(agent, "agent", "attempt")
        check_guest(verifier, "verifier", "verify")
        key = Key(name, task=task.id, index=index)
        known = await dispatcher.store.get("rollout", key, Rollout)
        if known is None:
            assembler = prior if isinstance(prior, PromptAssembler) else _assembler(prior, system)
            await record_prior(dispatcher.store, assembler)
            limits = AttemptLimits(seconds)
            scope = AttemptScope(
                key,
                task,
                assembler.prior,
                assembler.messages(task),
                dispatcher,
                temperature=temperature,
                deadline=Deadline(seconds),
                limits=limits,
                tools=self._tools,
                priority=Priority.START,
            )
            rollout = await run_attempt(scope, agent or DirectAgent(), verifier)
            await dispatcher.store.record("rollout", key, rollout)
        else:
            rollout = known
        self._hooks.emit(
            RolloutFinished(
                key=key.text, parent=key.group.text, phase=name, rollout=rollout, replayed=known is not None
            )
        )
        return rollout

    # --- parts -------------------------------------------------------------------------------------------

    def _open(self) -> Dispatcher:
        if self._dispatcher is None:
            raise UsageError(
                "The engine is not open: use it inside `async with tfgrpo.Engine(...) as engine:`."
            )
        return self._dispatcher

    async def _open_store(self) -> Store:
        place = self._place
        if place is None:
            return await self._stack.enter_async_context(MemoryStore())
        if not isinstance(place, str | Path):
            return place
        path = Path(place)
        if await anyio.to_thread.run_sync(path.is_dir):
            raise ConfigError(
                f"{path}: is a directory; name a file for the store, for example {path / 'job.db'}."
            )
        known = await anyio.to_thread.run_sync(path.exists)
        store = await (Journal.open if known else _create)(path, on_trouble=self._trouble)
        await self._stack.enter_async_context(store)
        if known and (RUN.text in store.header or await store.get("run", RUN, Header) is not None):
            raise ConfigError(
                f"{path}: is the journal of a run; go on with it by tfgrpo.resume({str(path.parent)!r}), or name "
                "another file for the store of an engine."
            )
        return store

    async def _open_models(self) -> tuple[dict[Role, Model], dict[Role, Price | None]]:
        endpoints = {role: entry for role, entry in self._given.items() if isinstance(entry, Endpoint)}
        prices: dict[Role, Price | None] = dict.fromkeys(self._given, self._price)
        models: dict[Role, Any] = dict(self._given)
        if endpoints:
            place = Path(self._stack.enter_context(TemporaryDirectory(prefix="tfgrpo-engine-")))
            models |= await open_models(endpoints, self._limits, self._stack, place, self._fetching)
            prices |= {role: price_of(endpoint.price) or self._price for role, endpoint in endpoints.items()}
        return models, prices

    def _trouble(self, message: str | None) -> None:
        self._hooks.emit(Warned(message or "The disk takes data again: the work goes on."))


class Outcomes(AsyncIterator[tuple[str, ModelReply | Fault]]):
    """The outcomes of `Engine.map`, as they are finished."""

    def __init__(
        self,
        engine: Engine,
        requests: Iterable[tuple[str, ModelRequest]] | AsyncIterable[tuple[str, ModelRequest]],
        role: Role,
        window: int,
    ) -> None:
        self._engine = engine
        self._plain: Iterator[tuple[str, ModelRequest]] | None = None
        self._asynchronous: AsyncIterator[tuple[str, ModelRequest]] | None = None
        if isinstance(requests, AsyncIterable):
            self._asynchronous = aiter(requests)
        else:
            self._plain = iter(requests)
        self._role = role
        self._window = window
        self._under_way = 0
        self._drained = False
        self._finished: collections.deque[tuple[str, ModelReply | Fault]] = collections.deque()
        self._error: BaseException | None = None
        self._wake: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, ModelReply | Fault]:
        while True:
            if self._finished and self._error is not None:
                return self._finished.popleft()  # paid for, and kept: it is told before the error
            if self._error is not None:
                raise self._error
            # What is finished goes first only when the window is full again: calls in flight are what takes time.
            while not self._drained and self._under_way + len(self._finished) < self._window:
                item = await self._next()
                if item is None:
                    self._drained = True
                    break
                self._start(*item)
            if self._finished:
                return self._finished.popleft()
            if self._under_way == 0:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    async def _next(self) -> tuple[str, ModelRequest] | None:
        if self._plain is not None:
            return next(self._plain, None)
        assert self._asynchronous is not None  # noqa: S101 - one of the two is there
        return await anext(self._asynchronous, None)

    def _start(self, key: str, request: ModelRequest) -> None:
        self._under_way += 1
        self._engine._open().tasks.start_soon(self._one, key, request)

    async def _one(self, key: str, request: ModelRequest) -> None:
        try:
            outcome: ModelReply | Fault = await self._engine.ask(key, request, role=self._role)
        except (RunStoppedError, JournalError, HookError, UsageError) as error:
            self._error = self._error or error
        except TfgrpoError as error:
            self._finished.append((key, fault_of(error, FaultKind.MODEL)))
        else:
            self._finished.append((key, outcome))
        finally:
            self._under_way -= 1
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)


async def _create(path: Path, *, on_trouble: Any) -> Journal:
    try:
        await anyio.to_thread.run_sync(lambda: path.parent.mkdir(parents=True, exist_ok=True))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be made ({error.strerror}); choose another place for the store."
        ) from None
    return await Journal.create(path, {}, on_trouble=on_trouble)


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        known = ", ".join(repr(known.value) for known in Role)
        raise UsageError(f"{role!r} is no role; the roles are {known}.") from None


def _model(entry: object) -> Model | Endpoint:
    if isinstance(entry, Mapping):
        entry = endpoint_of(entry)
    if isinstance(entry, Endpoint):
        return entry
    if isinstance(entry, type) or not callable(getattr(entry, "complete", None)):
        raise ConfigError(
            f"{entry!r} is no model: give an object with `async def complete(request, *, key, observer, stream)`, or "
            "{'base_url': …, 'name': …} for an endpoint."
        )
    return entry  # type: ignore[return-value]  # as far as can be seen from outside


def _assembler(library: ExperienceLibrary | None, system: str) -> PromptAssembler:
    return PromptAssembler(ExperienceLibrary.empty() if library is None else library, system=system)
