"""The forecast of a run out of its configuration: before it starts, at its start, and after its first attempts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tfgrpo.config import Config, Endpoint
from tfgrpo.errors import ConfigError
from tfgrpo.events import Event, Hook, Hooks, Noted, RolloutFinished, Warned
from tfgrpo.forecast.ceiling import RATES, CallSize, files_warning, raise_open_files, which_binds
from tfgrpo.forecast.estimate import Estimate, estimate, rollout_size
from tfgrpo.forecast.facts import AgentFacts, DistillFacts, Facts, ModelFacts
from tfgrpo.forecast.guesses import Guesses, guessed
from tfgrpo.forecast.measure import measured as measured_in
from tfgrpo.forecast.refine import refine
from tfgrpo.journal import JournalReader
from tfgrpo.library import ExperienceLibrary
from tfgrpo.protocols import Agent, Model
from tfgrpo.run.inputs import Inputs, limits_of, method_of, run_config
from tfgrpo.run.providers import price_of
from tfgrpo.run.reading import header_of
from tfgrpo.rundir import START, journal_path
from tfgrpo.types import Role, Rollout

#: Attempts of the baseline after which a run tells what the rest will take.
FIRST_ATTEMPTS = 20


def estimate_practice(
    config: Config,
    source: str | Path | None = None,
    *,
    agent: Agent | None = None,
    measured: Guesses | None = None,
) -> Estimate:
    """Estimate what `practice` with this configuration will take; nothing is sent and nothing is written.

    Args:
        config: from `load_config`; `data.practice` is needed.
        source: a run directory whose means take the place of the guesses.
        agent: the one that will attempt the tasks, where it is not the configured one: the number of its calls is not
            known without a `source`.
        measured: guesses, or means of a run, that are at hand already; `source` is not read then.

    Raises:
        ConfigError: configuration, data or `source` are unusable.
        JournalError: the journal of `source` is damaged.
    """
    facts = facts_of(Inputs.load("practice", config, own_verifier=agent is not None), agent)
    if measured is None and source is not None:
        measured = measure(facts, Path(source))
    return estimate(facts, measured)


def measure(facts: Facts, run: Path) -> Guesses:
    """Take the means of a run, finished or not, in place of the guesses.

    Args:
        facts: about the run that is estimated.
        run: the run directory.

    Raises:
        ConfigError: there is no run, or none of its calls was completed.
        JournalError: its journal is damaged.
    """
    with JournalReader(journal_path(run)) as reader:
        method = method_of(run_config(header_of(reader, run), run))
        own = guessed(facts.method, facts.agent, facts.distill)
        found = measured_in(own, reader, method, ExperienceLibrary.load(run / START), str(run))
    if found is None:
        raise ConfigError(f"--from {run}: no call of this run was completed, so there is nothing to go by.")
    return found


def facts_of(inputs: Inputs, agent: Agent | None = None) -> Facts:
    """Put together the facts that a forecast of these inputs is made from."""
    config = inputs.config
    asked = config.agent
    direct = agent is None and asked.kind == "direct"
    return Facts(
        method=inputs.method,
        practice=inputs.drawn(),
        held_out=inputs.held_out.tasks,
        agent=AgentFacts(
            direct=direct,
            max_tokens=asked.max_tokens if direct else None,
            response_schema=asked.response_schema if direct else None,
        ),
        models={role: _model(config.model.role(role)) for role in Role},
        distill=DistillFacts(
            prompts=inputs.prompts,
            objective=config.practice.learning_objective,
            lesson=config.distill.lesson,
            words=config.distill.experience_words,
            neighbours=config.distill.neighbours,
            max_tokens=config.distill.max_tokens,
        ),
        limits=limits_of(config),
        library=inputs.library,
        usd=config.budget.usd,
        tokens=config.budget.tokens,
    )


def start_notes(
    inputs: Inputs, seconds: Mapping[Role, float], models: Mapping[Role, Model], agent: Agent | None = None
) -> Iterator[Warned | Noted]:
    """Say before the first call what binds: open files, and for each endpoint its calls and rates.

    Args:
        inputs: of the run.
        seconds: a call of each role took in the mean, where an earlier engine made some.
        models: of each role; roles that share one share its limits.
        agent: the caller's own, if any.
    """
    limits = limits_of(inputs.config)
    if warning := files_warning(raise_open_files(limits.concurrency), limits.concurrency):
        yield Warned(warning)
    tokens: tuple[float, float] | None = None
    if any(getattr(limits, key) is not None for key in RATES if key != "requests_per_minute"):
        tokens = rollout_size(estimate(facts_of(inputs, agent)))
    told: dict[str, list[str]] = {}
    seen: set[int] = set()
    for role in (Role.ROLLOUT,) if inputs.kind == "evaluation" else (Role.ROLLOUT, Role.DISTILLER):
        model = models[role]
        if id(model) in seen:
            continue
        seen.add(id(model))
        known = tokens if role is Role.ROLLOUT and tokens is not None else (None, None)
        slots = model.group_limit if inputs.config.model.role(role).local else None
        told.setdefault(which_binds(limits, CallSize(seconds.get(role), *known), slots), []).append(
            role.value
        )
    for said, roles in told.items():
        yield Noted(said if len(seen) == 1 else f"{' and '.join(roles)}: {said}")


class FirstAttempts:
    """A hook that tells, after the first attempts of a new run, what the rest will take; made by `first_attempts`.

    Args:
        estimate: of the run.
        hooks: are told.
    """

    wants = (RolloutFinished,)

    def __init__(self, estimate: Estimate, hooks: Iterable[Hook]) -> None:
        self._estimate = estimate
        self._hooks = Hooks(hooks)
        self._seen: list[Rollout] = []
        self._over = False

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if self._over or not isinstance(event, RolloutFinished):
            return
        self._seen.append(event.rollout)
        self._over = event.replayed or len(self._seen) >= FIRST_ATTEMPTS
        if self._over:
            if not event.replayed:  # a resumed run has said it
                self._hooks.emit(refine(self._estimate, self._seen))
            self._seen.clear()


def first_attempts(inputs: Inputs, agent: Agent | None, hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    """Make the hook that tells what the rest will take; none where the calls of an attempt are known before.

    Args:
        inputs: of the run.
        agent: the caller's own, if any.
        hooks: are told.
    """
    facts = facts_of(inputs, agent)
    return () if facts.agent.direct else (FirstAttempts(estimate(facts), hooks),)


def _model(endpoint: Endpoint) -> ModelFacts:
    return ModelFacts(
        provider=f"{endpoint.base_url or 'local'} {endpoint.label}",
        label=endpoint.label,
        price=price_of(endpoint.price),
        local=endpoint.local is not None,
        group_requests=endpoint.group_requests,
        structured=endpoint.structured,
    )
