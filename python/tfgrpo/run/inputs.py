"""Everything a run's results depend on, loaded and checked before anything is paid."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfgrpo.config import Config, resolve_config, shaping_overrides, speed_keys
from tfgrpo.dataset import Dataset, load_dataset
from tfgrpo.distill import Prompts
from tfgrpo.engine.plan import Method, practice_tasks
from tfgrpo.errors import ConfigError, DataError
from tfgrpo.library import ExperienceLibrary, tokenizer_for_model
from tfgrpo.rundir import Header, Kind
from tfgrpo.types import Limits, Role, Task


@dataclass(frozen=True)
class Inputs:
    """The inputs of one run."""

    kind: Kind
    config: Config
    held_out: Dataset
    practice: Dataset | None
    library: ExperienceLibrary
    prompts: Prompts

    @classmethod
    def load(
        cls,
        kind: Kind,
        config: Config,
        library: ExperienceLibrary | None = None,
        *,
        own_verifier: bool = False,
    ) -> Inputs:
        """Load and check what a configuration names.

        Args:
            kind: of the run.
            config: the configuration.
            library: v_0; by default empty.
            own_verifier: the caller brings one, which need not compare with a truth.

        Raises:
            ConfigError: data or prompts are unusable; the message names the place.
        """
        if kind == "practice" and config.data.practice is None:
            raise ConfigError("data.practice is missing: practising needs practice tasks.")
        practice = config.data.practice if kind == "practice" else None
        held_out = load_dataset(config.data.held_out, key="data.held_out")
        tasks = None if practice is None else load_dataset(practice, key="data.practice")
        if tasks is not None:
            _check_disjoint(tasks, held_out)
        if config.verifier.kind != "python" and not own_verifier:
            _check_truths(held_out, "data.held_out", config.verifier.kind)
            if tasks is not None and config.practice.ground_truth:
                _check_truths(tasks, "data.practice", config.verifier.kind)
        # Counted as the model counts that will read it.
        start = ExperienceLibrary.empty() if library is None else library
        counted = start.with_tokenizer(tokenizer_for_model(config.model.role(Role.ROLLOUT).label))
        return cls(kind, config, held_out, tasks, counted, Prompts(config.distill.prompts))

    @property
    def method(self) -> Method:
        """The settings of the method."""
        return method_of(self.config)

    def drawn(self) -> tuple[Task, ...]:
        """The tasks that are practised on; none in an evaluation."""
        return () if self.practice is None else practice_tasks(self.method, self.practice.tasks)

    def header(self, started: float) -> Header:
        """The header of a run that starts at this time, in seconds since the epoch."""
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

    def must_match(self, header: Header, place: object) -> None:
        """Compare with what a run was started with.

        Raises:
            ConfigError: an input differs; the message names it.
        """
        now = self.header(header.started)
        names = {
            "kind": "the kind of run",
            "config_hash": "the configuration",
            "prompts": "a prompt file",
            "held_out": f"the data file {self.held_out.path}",
            "practice": f"the data file {self.practice.path if self.practice else ''}",
            "library": "the library it begins with",
        }
        for field, name in names.items():
            if getattr(now, field) != getattr(header, field):
                raise ConfigError(
                    f"{place}: {name} changed since the run was started; restore it, or start a new run."
                )


def method_of(config: Config) -> Method:
    """The settings of the method, out of a configuration."""
    practice = config.practice.model_dump(exclude={"learning_objective"})
    return Method(
        **practice,
        seed=config.run.seed,
        samples=config.evaluation.samples,
        evaluation_temperature=config.evaluation.temperature,
        system=config.agent.system,
        field=config.verifier.field,
    )


def limits_of(config: Config) -> Limits:
    """The limits of every provider, out of a configuration."""
    return Limits(**config.limits.model_dump(exclude={"task_timeout"}))


def unpriced(config: Config) -> list[Role]:
    """The roles whose money a `budget.usd` would not see."""
    if config.budget.usd is None:
        return []
    endpoints = {role: config.model.role(role) for role in (Role.ROLLOUT, Role.DISTILLER)}
    return [role for role, endpoint in endpoints.items() if endpoint.price is None and not endpoint.local]


def run_config(header: Header, place: object, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration a run was started with; overrides may change the keys that are marked as speed.

    Raises:
        ConfigError: an override is of a key that shapes results.
    """
    if shaping := shaping_overrides(overrides or {}):
        raise ConfigError(
            f"--set {shaping[0]}: a run keeps the settings that shape its results; only these may change on "
            f"resume: {', '.join(speed_keys())}. Start a new run to change others."
        )
    body = tomllib.loads(header.config)
    return resolve_config(body, dict(overrides or {}), place=str(place), environment=False)


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
