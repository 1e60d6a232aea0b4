"""The main job: baseline, practice, evaluation with what was learned, comparison, report; and resuming it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec

from tfgrpo.config import Config, api_key
from tfgrpo.dataset import Dataset, load_dataset
from tfgrpo.dispatch.budget import Budget
from tfgrpo.dispatch.calls import Calls
from tfgrpo.dispatch.sample import sampling
from tfgrpo.distill import Asker, Prompts
from tfgrpo.engine.context import Context, distiller_send
from tfgrpo.engine.evaluate import run_evaluation
from tfgrpo.engine.practice import practice_tasks, run_practice
from tfgrpo.errors import ConfigError, DataError, RunStoppedError
from tfgrpo.events import Hook, Hooks, Noted, Warned
from tfgrpo.forecast.ceiling import (
    RATES,
    CallSize,
    files_warning,
    raise_open_files,
    which_binds,
)
from tfgrpo.forecast.estimate import Estimate, estimate, rollout_size
from tfgrpo.forecast.guesses import guessed, measured
from tfgrpo.journal import Journal
from tfgrpo.library import ExperienceLibrary, tokenizer_for_model
from tfgrpo.models import Model
from tfgrpo.report.build import result_of
from tfgrpo.report.comparison import Comparison
from tfgrpo.report.records import read_records
from tfgrpo.report.result import Result, encode
from tfgrpo.rollout import build_agent
from tfgrpo.run.providers import Fetching, open_admissions, open_models
from tfgrpo.run.stop import StopSwitch
from tfgrpo.rundir import START, Header, Kind, journal_path, read_header, run_config
from tfgrpo.types import Role, Task, Usage
from tfgrpo.verify import build_verifier


@dataclass(frozen=True)
class Run:
    """A finished run: where it lies, what it learned, and whether that helps.

    `comparison` is None for an evaluation, which has one arm only.
    """

    directory: Path
    library: ExperienceLibrary
    comparison: Comparison | None
    result: Result


async def practice(
    config: Config,
    *,
    hooks: Iterable[Hook] = (),
    run_dir: str | Path | None = None,
    models: Mapping[Role, Model] | None = None,
    stop: StopSwitch | None = None,
    fetching: Fetching | None = None,
) -> Run:
    """Learn a library and say whether it helps: baseline, practice, evaluation, comparison, report.

    Args:
        config: from `load_config`; `data.practice` is needed.
        hooks: called with every event (`tfgrpo.events`).
        run_dir: the run directory, which must be new; by default `runs/<name>-<id>`.
        models: models to use in place of the configured endpoints, one for every role.
        stop: asks the run to stop with everything kept.
        fetching: told about the download of an embedded model's weights.

    Raises:
        ConfigError: configuration or data are unusable; nothing was paid.
        RunStoppedError: budget, provider or a stop ended the run early; `resume` goes on.
        JournalError: nothing can be made durable any more; `resume` goes on once that is mended.

    Cancellation: aborts calls in flight, which then count as possibly paid; all else is kept for `resume`.
    """
    inputs = _Inputs.load_practice(config)
    return await _start(inputs, run_dir, _Surroundings(tuple(hooks), models, stop, fetching))


def estimate_practice(config: Config, source: str | Path | None = None) -> Estimate:
    """What `practice` with this configuration will take; nothing is sent and nothing is written.

    Args:
        config: from `load_config`; `data.practice` is needed.
        source: a run directory whose means take the place of the guesses.

    Raises:
        ConfigError: configuration, data or `source` are unusable.
        JournalError: the journal of `source` is damaged.
    """
    inputs = _Inputs.load_practice(config)
    guesses = guessed(config) if source is None else measured(config, Path(source))
    tasks = inputs.drawn()
    return estimate(config, tasks, inputs.held_out.tasks, inputs.prompts, guesses=guesses)


async def evaluate(
    config: Config,
    *,
    library: ExperienceLibrary | None = None,
    hooks: Iterable[Hook] = (),
    run_dir: str | Path | None = None,
    models: Mapping[Role, Model] | None = None,
    stop: StopSwitch | None = None,
    fetching: Fetching | None = None,
) -> Run:
    """Answer the held-out tasks with a library (none: the baseline) and report the mean reward.

    Arguments, errors and cancellation as in `practice`; `library` is the token prior.
    """
    inputs = _Inputs.load("evaluation", config, library or ExperienceLibrary.empty())
    return await _start(inputs, run_dir, _Surroundings(tuple(hooks), models, stop, fetching))


async def resume(
    run_dir: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    hooks: Iterable[Hook] = (),
    models: Mapping[Role, Model] | None = None,
    stop: StopSwitch | None = None,
    fetching: Fetching | None = None,
) -> Run:
    """Go on with a run at the next call that is not completed; a finished run is only reported again.

    Args:
        run_dir: the run directory.
        overrides: dotted keys under `limits` and `budget`, the only ones that may change in a run.
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
    hooks = tuple(hooks)
    journal = Journal.open(journal_path(directory), on_trouble=_trouble(hooks))
    async with journal:
        header = read_header(journal.header, directory)
        config = run_config(header, directory, overrides)
        inputs = _Inputs.load(header.kind, config, ExperienceLibrary.load(directory / START))
        inputs.must_match(header, directory)
        surroundings = _Surroundings(tuple(hooks), models, stop, fetching)
        return await _work(journal, inputs, directory, surroundings)


@dataclass(frozen=True)
class _Surroundings:
    """What a caller brings along and no result depends on (but for `models`)."""

    hooks: tuple[Hook, ...]
    models: Mapping[Role, Model] | None
    stop: StopSwitch | None
    fetching: Fetching | None


@dataclass(frozen=True)
class _Inputs:
    """Everything a run's results depend on, loaded and checked before anything is paid."""

    kind: Kind
    config: Config
    held_out: Dataset
    practice: Dataset | None
    library: ExperienceLibrary
    prompts: Prompts

    @classmethod
    def load_practice(cls, config: Config) -> _Inputs:
        if config.data.practice is None:
            raise ConfigError("data.practice is missing: practising needs practice tasks.")
        return cls.load("practice", config, ExperienceLibrary.empty())

    @classmethod
    def load(cls, kind: Kind, config: Config, library: ExperienceLibrary) -> _Inputs:
        practice = config.data.practice if kind == "practice" else None
        held_out = load_dataset(config.data.held_out, key="data.held_out")
        tasks = None if practice is None else load_dataset(practice, key="data.practice")
        if tasks is not None:
            _check_disjoint(tasks, held_out)
        if config.verifier.kind != "python":
            _check_truths(held_out, "data.held_out", config.verifier.kind)
            if tasks is not None and config.practice.ground_truth:
                _check_truths(tasks, "data.practice", config.verifier.kind)
        # Counted as the model counts that will read it.
        counted = library.with_tokenizer(tokenizer_for_model(config.model.role(Role.ROLLOUT).label))
        return cls(kind, config, held_out, tasks, counted, Prompts(config.distill.prompts))

    def drawn(self) -> tuple[Task, ...]:
        """The tasks that are practised on; none in an evaluation."""
        return () if self.practice is None else practice_tasks(self.config, self.practice.tasks)

    def header(self, started: float) -> Header:
        return Header(
            kind=self.kind,
            config=self.config.to_toml(),
            config_hash=self.config.digest(),
            prompts=self.prompts.digest,
            held_out=self.held_out.digest,
            practice=None if self.practice is None else self.practice.digest,
            library=self.library.digest,
            started=started,
        )

    def must_match(self, header: Header, directory: Path) -> None:
        """Raise ConfigError where an input is not what the run was started with."""
        now = self.header(header.started)
        places = {
            "config_hash": "the configuration",
            "prompts": "a prompt file",
            "held_out": f"the data file {self.held_out.path}",
            "practice": f"the data file {self.practice.path if self.practice else ''}",
            "library": f"{directory / START}",
        }
        for field, place in places.items():
            if getattr(now, field) != getattr(header, field):
                raise ConfigError(
                    f"{directory}: {place} changed since the run was started; restore it, or start a new run."
                )


async def _start(inputs: _Inputs, run_dir: str | Path | None, surroundings: _Surroundings) -> Run:
    # A wrong verifier.function and a missing key are told before anything is created.
    build_verifier(inputs.config.verifier)
    if surroundings.models is None:
        for role in Role:
            api_key(inputs.config.model.role(role))
    name = inputs.config.run.name
    directory = Path(run_dir) if run_dir is not None else Path("runs") / f"{name}-{secrets.token_hex(3)}"
    if (directory / "journal.db").exists():
        raise ConfigError(f"{directory}: holds a run already; go on with it by tfgrpo resume {directory}.")
    header = inputs.header(time.time())
    try:
        (directory / START.parent).mkdir(parents=True, exist_ok=True)
        (directory / "config.toml").write_text(header.config, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot be written ({error.strerror}); choose another --run-dir."
        ) from None
    inputs.library.save(directory / START)
    journal = Journal.create(
        directory / "journal.db", msgspec.to_builtins(header), on_trouble=_trouble(surroundings.hooks)
    )
    async with journal:
        return await _work(journal, inputs, directory, surroundings)


async def _work(journal: Journal, inputs: _Inputs, directory: Path, surroundings: _Surroundings) -> Run:
    """Run or go on with a run, up to its result; ends in one error, however many tasks failed."""
    try:
        async with AsyncExitStack() as stack:
            context = await _open(journal, inputs, directory, surroundings, stack)
            held_out = inputs.held_out.tasks
            library = inputs.library
            if inputs.kind == "practice":
                await run_evaluation(context, "baseline", held_out, library)
                library = await run_practice(context, library)
            await run_evaluation(context, "learned", held_out, library)
    except RunStoppedError as error:
        raise _resumable(error, directory) from None
    return await anyio.to_thread.run_sync(write_report, directory)


async def _open(
    journal: Journal,
    inputs: _Inputs,
    directory: Path,
    surroundings: _Surroundings,
    stack: AsyncExitStack,
) -> Context:
    config = inputs.config
    hooks = Hooks(surroundings.hooks)
    models = surroundings.models
    if models is None:
        models = await open_models(config, stack, directory, surroundings.fetching or _ignore)
    verifier = build_verifier(config.verifier)
    stack.push_async_callback(verifier.aclose)
    spent = sum(journal.reader.usage_by_role().values(), Usage())
    for role in unpriced(config):
        hooks.emit(
            Warned(
                f"budget.usd cannot bind: the {role} model has no [model.price], so its calls count as $0; "
                "set the prices, or budget.tokens."
            )
        )
    budget = Budget(config.budget, spent, lambda message: hooks.emit(Warned(message)))
    admissions = open_admissions(config.limits, models)
    calls = Calls(journal, models, admissions, budget, config, hooks)
    calls.count_open_intents()
    await stack.enter_async_context(sampling(hooks, admissions, budget, calls.waits))
    for told in start_notes(config, inputs, journal, models):
        hooks.emit(told)
    if surroundings.stop is not None:
        surroundings.stop.attach(calls.halt)
    return Context(
        config=config,
        directory=directory,
        journal=journal,
        calls=calls,
        agent=build_agent(config.agent),
        verifier=verifier,
        asker=Asker(distiller_send(calls, config.run.seed), inputs.prompts, config),
        hooks=hooks,
        practice_tasks=inputs.drawn(),
    )


def start_notes(
    config: Config, inputs: _Inputs, journal: Journal, models: Mapping[Role, Model]
) -> Iterator[Warned | Noted]:
    """What binds, said before the first call: open files, and for each endpoint its calls and rates."""
    limits = config.limits
    if warning := files_warning(raise_open_files(limits.concurrency), limits.concurrency):
        yield Warned(warning)
    tokens: tuple[float, float] | tuple[None, None] = (None, None)
    if any(getattr(limits, key, None) is not None for key in RATES if key != "requests_per_minute"):
        tokens = rollout_size(
            estimate(config, inputs.drawn(), inputs.held_out.tasks, inputs.prompts, library=inputs.library)
        )
    seconds = journal.seconds_a_call
    told: dict[str, list[str]] = {}
    seen: set[int] = set()
    for role in (Role.ROLLOUT,) if inputs.kind == "evaluation" else (Role.ROLLOUT, Role.DISTILLER):
        if id(models[role]) in seen:
            continue
        seen.add(id(models[role]))
        call = CallSize(seconds.get(role), *(tokens if role is Role.ROLLOUT else (None, None)))
        slots = models[role].group_limit if config.model.role(role).local else None
        told.setdefault(which_binds(limits, call, slots), []).append(role.value)
    for said, roles in told.items():
        yield Noted(said if len(seen) == 1 else f"{' and '.join(roles)}: {said}")


def write_report(run_dir: str | Path) -> Run:
    """Build the result of a finished run from its journal; writes `result.json` and `report.html`.

    Raises:
        ConfigError: no run there, or it is not finished.
        JournalError: the journal is damaged.
    """
    from tfgrpo.report.html import render  # brings matplotlib: a second that only a finished run spends

    directory = Path(run_dir)
    records = read_records(directory)
    comparison, result = result_of(records)
    try:
        _replace(directory / "result.json", encode(result))
        _replace(directory / "report.html", render(result, records).encode())
    except OSError as error:
        raise ConfigError(f"{directory}: the report cannot be written: {error.strerror}.") from None
    return Run(directory, records.library, comparison, result)


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


def unpriced(config: Config) -> list[Role]:
    """The roles whose money a `budget.usd` would not see."""
    if config.budget.usd is None:
        return []
    endpoints = {role: config.model.role(role) for role in (Role.ROLLOUT, Role.DISTILLER)}
    return [role for role, endpoint in endpoints.items() if endpoint.price is None and not endpoint.local]


def _check_disjoint(practice: Dataset, held_out: Dataset) -> None:
    """Held-out tasks must not be practised on: the verdict would measure memory."""
    texts = {task.input.strip(): task for task in practice.tasks}
    for task in held_out.tasks:
        if (other := texts.get(task.input.strip())) is not None:
            raise ConfigError(
                f"data.held_out: task {task.id!r} of {held_out.path} is also practice task {other.id!r} of "
                f"{practice.path}; held-out tasks must be new, or the verdict would measure memory."
            )


def _check_truths(data: Dataset, key: str, verifier: str) -> None:
    """A verifier that compares needs something to compare with, and that is told before anything is paid."""
    missing = [task.id for task in data.tasks if task.truth is None]
    if missing:
        raise DataError(
            f"{key}: {len(missing)} of {len(data.tasks)} tasks of {data.path} have no truth, the first is "
            f'{missing[0]!r}, and verifier.kind = "{verifier}" compares with it; add the truths, or grade with '
            'verifier.kind = "python".'
        )


def _resumable(error: RunStoppedError, directory: Path) -> RunStoppedError:
    error.message = f"{error.reason.message} Go on with: tfgrpo resume {directory}"
    error.args = (error.message,)
    return error


def _trouble(hooks: Iterable[Hook]) -> Callable[[str | None], None]:
    """What the journal calls when the disk is full or refuses, and with None when it goes on."""
    told = Hooks(tuple(hooks))

    def tell(message: str | None) -> None:
        told.emit(Warned(message or "The disk takes data again: the run goes on."))

    return tell


def _ignore(_done: int, _total: int, _what: str) -> None:
    pass
