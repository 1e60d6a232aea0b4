"""The public jobs: practise, evaluate, resume; and the same for scripts without an event loop."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from tfgrpo.config import Config, api_key
from tfgrpo.dispatch import Budget
from tfgrpo.engine.context import Context
from tfgrpo.engine.evaluate import Arm, run_evaluation
from tfgrpo.engine.practice import run_practice
from tfgrpo.errors import ConfigError, RunStoppedError
from tfgrpo.events import Hook, Hooks, Warned
from tfgrpo.journal import Journal
from tfgrpo.library import ExperienceLibrary
from tfgrpo.protocols import Agent, AttemptLimits, Model, Store, Tool, Verifier
from tfgrpo.run.build import build_agent, build_asker, build_cache, build_gate, build_verifier
from tfgrpo.run.finish import Run, finish
from tfgrpo.run.forecasting import first_attempts, start_notes
from tfgrpo.run.guests import Guests, bring
from tfgrpo.run.inputs import Inputs, limits_of, run_config, unpriced
from tfgrpo.run.providers import Fetching, open_models, price_of
from tfgrpo.run.session import close_verifier, open_dispatcher, window_of
from tfgrpo.run.stop import StopSwitch
from tfgrpo.rundir import LIBRARY, RUN, START, Header, Kind, header_from, journal_path
from tfgrpo.trust import Overtaken
from tfgrpo.types import Role

T = TypeVar("T")


async def practice(
    config: Config,
    *,
    agent: Agent | None = None,
    verifier: Verifier | None = None,
    tools: Iterable[Tool] = (),
    hooks: Iterable[Hook] = (),
    run_dir: str | Path | None = None,
    store: Store | None = None,
    models: Mapping[Role, Model] | None = None,
    stop: StopSwitch | None = None,
    fetching: Fetching | None = None,
) -> Run:
    """Learn a library and say whether it helps: baseline, practice, evaluation, comparison, report.

    Args:
        config: from `load_config`; `data.practice` is needed.
        agent: attempts the tasks, instead of the configured one.
        verifier: grades them, instead of the configured one.
        tools: that the agent may call by name.
        hooks: called with every event (`tfgrpo.events`).
        run_dir: the run directory, which must be new; by default `runs/<name>-<id>`.
        store: an open store in place of the run directory's journal; a run that it holds is gone on with. Nothing
            else is written then, unless `run_dir` is given as well.
        models: models to use in place of the configured endpoints, one for every role.
        stop: asks the run to stop with everything kept.
        fetching: told about the download of an embedded model's weights.

    Raises:
        ConfigError: configuration or data are unusable; nothing was paid.
        RunStoppedError: budget, provider or a stop ended the run early; `resume` goes on.
        JournalError: nothing can be made durable any more; `resume` goes on once that is mended.

    Cancellation: aborts calls in flight, which then count as possibly paid; all else is kept for `resume`.
    """
    guests = bring(agent, verifier, tools, hooks, models, stop, fetching)
    inputs = await _load("practice", config, None, verifier)
    return await _start(inputs, run_dir, store, guests)


async def evaluate(
    config: Config,
    *,
    library: ExperienceLibrary | None = None,
    agent: Agent | None = None,
    verifier: Verifier | None = None,
    tools: Iterable[Tool] = (),
    hooks: Iterable[Hook] = (),
    run_dir: str | Path | None = None,
    store: Store | None = None,
    models: Mapping[Role, Model] | None = None,
    stop: StopSwitch | None = None,
    fetching: Fetching | None = None,
) -> Run:
    """Answer the held-out tasks with a library (none: the baseline) and report the mean reward.

    Arguments, errors and cancellation as in `practice`; `library` is the token prior.
    """
    guests = bring(agent, verifier, tools, hooks, models, stop, fetching)
    inputs = await _load("evaluation", config, library, verifier)
    return await _start(inputs, run_dir, store, guests)


async def resume(
    run_dir: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    agent: Agent | None = None,
    verifier: Verifier | None = None,
    tools: Iterable[Tool] = (),
    hooks: Iterable[Hook] = (),
    models: Mapping[Role, Model] | None = None,
    stop: StopSwitch | None = None,
    fetching: Fetching | None = None,
) -> Run:
    """Go on with a run at the next effect that is not completed; a finished run is only reported again.

    Args:
        run_dir: the run directory.
        overrides: dotted keys of settings that do not shape results, such as "budget.usd".
        agent: as in `practice`: the one that the run was started with.
        verifier: as in `practice`, likewise.
        tools: as in `practice`.
        hooks: as in `practice`.
        models: as in `practice`.
        stop: as in `practice`.
        fetching: as in `practice`.

    Raises:
        ConfigError: no run there, its data or prompts changed since, or an override is not allowed.
        RunStoppedError: as in `practice`.
        JournalError: as in `practice`.
    """
    directory = Path(run_dir)
    guests = bring(agent, verifier, tools, hooks, models, stop, fetching)
    path = await anyio.to_thread.run_sync(journal_path, directory)
    async with await Journal.open(path, on_trouble=_trouble(guests.hooks)) as store:
        header = await _header_of(store, directory)
        if header is None:
            raise ConfigError(
                f"{directory}: holds no run, but the effects of an engine; open it with tfgrpo.Engine."
            )
        config = run_config(header, directory, overrides)

        start = await anyio.to_thread.run_sync(ExperienceLibrary.load, directory / START)
        inputs = await _load(header.kind, config, start, verifier)
        return await _work(store, inputs, directory, guests)


def practice_sync(config: Config, **arguments: Any) -> Run:
    """`practice` for scripts and notebooks: runs an event loop of its own, in a thread where one is running.

    Arguments and errors as in `practice`. Ctrl-C cancels the run; all that was acknowledged is kept.
    """
    return run_sync(lambda: practice(config, **arguments))


def evaluate_sync(config: Config, **arguments: Any) -> Run:
    """`evaluate` for scripts and notebooks; see `practice_sync`."""
    return run_sync(lambda: evaluate(config, **arguments))


def resume_sync(run_dir: str | Path, **arguments: Any) -> Run:
    """`resume` for scripts and notebooks; see `practice_sync`."""
    return run_sync(lambda: resume(run_dir, **arguments))


def run_sync(job: Callable[[], Awaitable[T]]) -> T:
    """Run an asynchronous job to its end: in an event loop of its own, in a thread where one is running here."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def main() -> T:
        return await job()

    def run() -> T:
        return anyio.run(main, backend_options={"use_uvloop": sys.platform != "win32"})

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(1) as threads:  # a notebook has a loop already
        return threads.submit(run).result()


async def _load(
    kind: Kind, config: Config, library: ExperienceLibrary | None, verifier: Verifier | None
) -> Inputs:
    """Load the inputs of a run, beside the event loop."""
    own = verifier is not None
    return await anyio.to_thread.run_sync(lambda: Inputs.load(kind, config, library, own_verifier=own))


async def _start(inputs: Inputs, run_dir: str | Path | None, store: Store | None, guests: Guests) -> Run:
    # A wrong verifier.function and a missing key are told before anything is created.
    if guests.verifier is None:
        await anyio.to_thread.run_sync(build_verifier, inputs.config.verifier)
    if guests.models is None:
        for role in Role:
            api_key(inputs.config.model.role(role))
    if store is not None:
        return await _work(store, inputs, None if run_dir is None else Path(run_dir), guests)
    name = inputs.config.run.name
    directory = Path(run_dir) if run_dir is not None else Path("runs") / f"{name}-{secrets.token_hex(3)}"
    await anyio.to_thread.run_sync(_make, directory, inputs)
    # Made with its header: a run that is killed before its first record can be resumed.
    made_with = {RUN.text: msgspec.to_builtins(inputs.header(time.time()))}
    async with await Journal.create(
        directory / "journal.db", made_with, on_trouble=_trouble(guests.hooks)
    ) as journal:
        return await _work(journal, inputs, directory, guests)


def _make(directory: Path, inputs: Inputs) -> None:
    """Make the run directory, with its configuration and the library it begins with."""
    if (directory / "journal.db").exists():
        raise ConfigError(f"{directory}: holds a run already; go on with it by tfgrpo resume {directory}.")
    try:
        (directory / LIBRARY).mkdir(parents=True, exist_ok=True)
        (directory / "config.toml").write_text(inputs.config.to_toml(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot be written ({error.strerror}); choose another --run-dir."
        ) from None
    inputs.library.save(directory / START)


async def _header_of(store: Store, place: object) -> Header | None:
    """The header of the run that a store holds: a record or, until that is written, what the store was made with.

    Raises:
        JournalError: it cannot be read.
    """
    found = await store.get("run", RUN, Header)
    if found is None and RUN.text in store.header:
        return header_from(store.header[RUN.text], place)
    return found


async def _work(store: Store, inputs: Inputs, directory: Path | None, guests: Guests) -> Run:
    """Run or go on with a run, up to its result; ends in one error, however many tasks failed."""
    place = directory or "the store"
    header = await _header_of(store, place)
    if header is None:
        header = inputs.header(time.time())
    else:
        inputs.must_match(header, place)
    await store.record("run", RUN, header)
    try:
        async with AsyncExitStack() as stack:
            context = await _open(store, inputs, directory, guests, stack)
            held_out = inputs.held_out.tasks
            library = inputs.library
            if inputs.kind == "practice":
                await run_evaluation(context, [Arm("baseline", library)], held_out)
                library = await run_practice(context, library, build_gate(inputs.method))
            await run_evaluation(context, [Arm("learned", library)], held_out)
    except RunStoppedError as error:
        raise _resumable(error, directory) from None
    return await finish(store, header, inputs, directory)


async def _open(
    store: Store, inputs: Inputs, directory: Path | None, guests: Guests, stack: AsyncExitStack
) -> Context:
    """Open what a run works with; `stack` closes it."""
    config = inputs.config
    hooks = Hooks((*guests.hooks, *first_attempts(inputs, guests.agent, guests.hooks)))
    limits = limits_of(config)
    endpoints = {role: config.model.role(role) for role in Role}
    models = guests.models
    if models is None:
        place = directory or Path.cwd()
        models = await open_models(endpoints, limits, stack, place, guests.fetching)
    verifier = guests.verifier
    if verifier is None:
        verifier = await anyio.to_thread.run_sync(build_verifier, config.verifier)
    stack.push_async_callback(close_verifier, verifier)
    for role in unpriced(config):
        hooks.emit(
            Warned(
                f"budget.usd cannot bind: the {role} model has no [model.price], so its calls count as $0; "
                "set the prices, or budget.tokens."
            )
        )
    dispatcher = await stack.enter_async_context(
        open_dispatcher(
            store,
            models,
            hooks,
            limits=limits,
            budget=Budget(config.budget.usd, config.budget.tokens),
            prices={role: price_of(endpoint.price) for role, endpoint in endpoints.items()},
            seed=config.run.seed,
            stop=guests.stop,
        )
    )
    for told in start_notes(inputs, store.seconds_a_call(), models, guests.agent):
        hooks.emit(told)
    return Context(
        method=inputs.method,
        store=store,
        dispatcher=dispatcher,
        agent=guests.agent or build_agent(config.agent),
        verifier=verifier,
        asker=build_asker(config, inputs.prompts, dispatcher),
        hooks=hooks,
        screens=(Overtaken(),),
        cache=build_cache(endpoints[Role.ROLLOUT]),
        directory=None if directory is None else directory / LIBRARY,
        practice_tasks=inputs.drawn(),
        limits=AttemptLimits(config.limits.task_timeout),
        tools={tool.name: tool for tool in guests.tools},
        window=window_of(limits),
    )


def _resumable(error: RunStoppedError, directory: Path | None) -> RunStoppedError:
    on = f"tfgrpo resume {directory}" if directory is not None else "the same call with the same store"
    error.message = f"{error.reason.message} Go on with: {on}"
    error.args = (error.message,)
    return error


def _trouble(hooks: Iterable[Hook]) -> Callable[[str | None], None]:
    """The callback of the journal when the disk is full or refuses, and with None when it goes on."""
    told = Hooks(tuple(hooks))

    def tell(message: str | None) -> None:
        told.emit(Warned(message or "The disk takes data again: the run goes on."))

    return tell
