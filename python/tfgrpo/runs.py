"""The main job: baseline, practice, evaluation with what was learned, comparison, report; and resuming it."""

from __future__ import annotations

import secrets
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from tfgrpo.report.result import Result

from tfgrpo.config import Config, resolve_config
from tfgrpo.distill import Asker, Prompts
from tfgrpo.engine.budget import Budget
from tfgrpo.engine.calls import Calls
from tfgrpo.engine.context import Context, distiller_send
from tfgrpo.engine.dataset import Dataset, load_dataset
from tfgrpo.engine.evaluate import run_evaluation
from tfgrpo.engine.practice import run_practice
from tfgrpo.engine.providers import Fetching, open_admissions, open_models
from tfgrpo.engine.stop import StopSwitch
from tfgrpo.errors import ConfigError, JournalError, RunStoppedError, TfgrpoError
from tfgrpo.events import Hook, Hooks, Warned
from tfgrpo.journal import Journal
from tfgrpo.library import ExperienceLibrary
from tfgrpo.models import Model
from tfgrpo.report.comparison import Comparison
from tfgrpo.rollout import build_agent
from tfgrpo.types import Role, Struct, Usage
from tfgrpo.verify import build_verifier

Kind = Literal["practice", "evaluation"]


@dataclass(frozen=True)
class Run:
    """A finished run: where it lies, what it learned, and whether that helps.

    `comparison` is None for an evaluation, which has one arm only.
    """

    directory: Path
    library: ExperienceLibrary
    comparison: Comparison | None
    result: Result


class Header(Struct, frozen=True):
    """What a run was started with; the first row of its journal. Resuming must find the same inputs."""

    kind: Kind
    config: str
    config_hash: str
    prompts: str
    held_out: str
    practice: str | None
    library: str
    started: float


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
    if config.data.practice is None:
        raise ConfigError("data.practice is missing: practising needs practice tasks.")
    inputs = _Inputs.load("practice", config, ExperienceLibrary.empty())
    return await _start(inputs, run_dir, _Surroundings(tuple(hooks), models, stop, fetching))


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
    journal = Journal.open(journal_path(directory))
    async with journal:
        header = read_header(journal.header, directory)
        config = run_config(header, directory, overrides)
        inputs = _Inputs.load(header.kind, config, ExperienceLibrary.load(directory / START))
        inputs.must_match(header, directory)
        surroundings = _Surroundings(tuple(hooks), models, stop, fetching)
        return await _work(journal, header, inputs, directory, surroundings)


def journal_path(directory: Path) -> Path:
    """The journal of a run directory.

    Raises:
        ConfigError: there is no run directory, or it holds no journal.
    """
    path = directory / "journal.db"
    if not path.is_file():
        raise ConfigError(
            f"{directory}: is no run directory (it has no journal.db); name one, as in runs/demo-1a2b."
        )
    return path


def read_header(header: Mapping[str, Any], directory: Path) -> Header:
    """The header of a run's journal.

    Raises:
        JournalError: it is not one of ours.
    """
    try:
        return msgspec.convert(header, Header)
    except msgspec.ValidationError as error:
        raise JournalError(f"{directory}: the journal has no readable header: {error}.") from None


def run_config(header: Header, directory: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration a run was started with, speed limits and budget possibly changed.

    Raises:
        ConfigError: an override is of a key that shapes results.
    """
    for key in overrides or {}:
        if key.partition(".")[0] not in ("limits", "budget"):
            raise ConfigError(
                f"--set {key}: a run keeps the settings that shape its results; only limits.* and budget.* "
                "may change on resume. Start a new run to change others."
            )
    body = tomllib.loads(header.config)
    return resolve_config(body, dict(overrides or {}), place=str(directory), environment=False)


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
    def load(cls, kind: Kind, config: Config, library: ExperienceLibrary) -> _Inputs:
        practice = config.data.practice if kind == "practice" else None
        held_out = load_dataset(config.data.held_out, key="data.held_out")
        tasks = None if practice is None else load_dataset(practice, key="data.practice")
        if tasks is not None:
            _check_disjoint(tasks, held_out)
        return cls(kind, config, held_out, tasks, library, Prompts(config.distill.prompts))

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


#: Where a run directory keeps the library it starts with.
START = Path("library") / "v0000.json"


async def _start(inputs: _Inputs, run_dir: str | Path | None, surroundings: _Surroundings) -> Run:
    build_verifier(inputs.config.verifier)  # a wrong verifier.function is told before anything is created
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
    journal = Journal.create(directory / "journal.db", msgspec.to_builtins(header))
    async with journal:
        return await _work(journal, header, inputs, directory, surroundings)


async def _work(
    journal: Journal, header: Header, inputs: _Inputs, directory: Path, surroundings: _Surroundings
) -> Run:
    """Run or go on with a run, up to its result; ends in one error, however many tasks failed."""
    try:
        async with AsyncExitStack() as stack:
            context = await _open(journal, inputs, directory, surroundings, stack)
            held_out = inputs.held_out.tasks
            if inputs.kind == "evaluation":
                baseline, learned, library = (
                    None,
                    await run_evaluation(context, "learned", held_out, inputs.library),
                    inputs.library,
                )
            else:
                baseline = await run_evaluation(context, "baseline", held_out, inputs.library)
                library = await run_practice(context, inputs.library)
                learned = await run_evaluation(context, "learned", held_out, library)
    except BaseExceptionGroup as group:
        raise _told_once(group, directory) from None
    except RunStoppedError as error:
        raise _resumable(error, directory) from None
    return _finish(journal, header, inputs, directory, library, baseline, learned)


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
    budget = Budget(config.budget, spent, lambda message: hooks.emit(Warned(message)))
    calls = Calls(journal, models, open_admissions(config.limits, models), budget, config, hooks)
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
        practice_tasks=inputs.practice.tasks if inputs.practice is not None else (),
    )


def _check_disjoint(practice: Dataset, held_out: Dataset) -> None:
    """Held-out tasks must not be practised on: the verdict would measure memory."""
    texts = {task.input.strip(): task for task in practice.tasks}
    for task in held_out.tasks:
        if (other := texts.get(task.input.strip())) is not None:
            raise ConfigError(
                f"data.held_out: task {task.id!r} of {held_out.path} is also practice task {other.id!r} of "
                f"{practice.path}; held-out tasks must be new, or the verdict would measure memory."
            )


def _told_once(group: BaseExceptionGroup[BaseException], directory: Path) -> BaseException:
    """The one error of a group that says why the run ended; anything unknown is not hidden."""
    leaves = list(_leaves(group))
    for family in (RunStoppedError, JournalError, TfgrpoError):
        for leaf in leaves:
            if isinstance(leaf, family):
                return _resumable(leaf, directory)
    return leaves[0] if len(leaves) == 1 else group


def _resumable(error: TfgrpoError, directory: Path) -> TfgrpoError:
    if isinstance(error, RunStoppedError):
        error.message = f"{error.reason.message} Go on with: tfgrpo resume {directory}"
        error.args = (error.message,)
    return error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _ignore(_done: int, _total: int, _what: str) -> None:
    pass
