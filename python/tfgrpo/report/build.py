"""From what a store holds to comparisons and the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import anyio.to_thread
import msgspec

from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.models.pricing import saved_usd
from tfgrpo.report.comparison import Comparison, Rewards, compare, mean_interval, pass_at_k
from tfgrpo.report.reading import read_records
from tfgrpo.report.records import ArmRecords, ModelTerms, RunRecords, Source, StepTally, Terms
from tfgrpo.report.result import (
    ArmComparison,
    ArmResult,
    Cost,
    Groups,
    LibraryResult,
    Result,
    StepResult,
    Usages,
)
from tfgrpo.types import Role, Usage


@dataclass(frozen=True)
class Report:
    """A finished run: what was read, each later arm compared with the first (by name, in order), and the result."""

    records: RunRecords
    comparisons: dict[str, Comparison]
    result: Result

    @property
    def comparison(self) -> Comparison | None:
        """The headline: the last arm against the first; None for a single arm."""
        return next(reversed(self.comparisons.values()), None)


async def build_report(source: Source, terms: Terms, start_library: ExperienceLibrary) -> Report:
    """Read a finished run, compare its arms and make its result; nothing is written.

    Args:
        source: what the run made durable.
        terms: of the run.
        start_library: v_0, the library it began with.

    Raises:
        ConfigError: the run is not finished, or the terms name no arm or one twice.
        JournalError: the store is damaged.

    Cancellation: propagates, after the comparison where that has begun (seconds); nothing was written.
    """
    records = await read_records(source, terms, start_library)
    return await anyio.to_thread.run_sync(report_of, records)


def report_of(records: RunRecords) -> Report:
    """Compare the arms of a run and make its result: computation alone, of some seconds."""
    terms = records.terms
    first, *others = records.arms
    comparisons = {
        arm: compare(
            records.arms[first].rewards,
            records.arms[arm].rewards,
            samples=terms.samples,
            confidence=terms.confidence,
            seed=terms.seed,
        )
        for arm in others
    }
    arms = {arm: _arm_result(records, comparisons, arm) for arm in records.arms}
    made = tuple(_arm_comparison(arm, first, found) for arm, found in comparisons.items())
    headline = made[-1] if made else None
    if headline is not None:
        sentence, tasks, unpaired = headline.sentence, headline.tasks, headline.unpaired
    else:
        graded = {task: bool(rewards) for task, rewards in records.arms[first].rewards.items()}
        tasks, unpaired = sum(graded.values()), tuple(sorted(task for task in graded if not graded[task]))
        sentence = _sentence(arms[first], tasks, terms.confidence)
    result = Result(
        kind=terms.kind,
        name=terms.name,
        verdict=headline.verdict if headline else None,
        sentence=sentence,
        tasks=tasks,
        unpaired=unpaired,
        confidence=terms.confidence,
        difference=headline.difference if headline else None,
        interval=headline.interval if headline else None,
        interval_method=headline.interval_method if headline else None,
        p_value=headline.p_value if headline else None,
        test=headline.test if headline else None,
        arms=arms,
        comparisons=made,
        usage=_usages(records.usage, terms),
        faults=_faults(records),
        groups=Groups(
            mixed=sum(step.groups.mixed for step in records.steps),
            uniform=sum(step.groups.uniform for step in records.steps),
            undergraded=sum(step.groups.undergraded for step in records.steps),
        ),
        steps=tuple(_step_result(step, terms) for step in records.steps),
        library=_library_result(records.library, terms),
        models={role.value: model.label for role, model in terms.models.items()},
        config_hash=terms.config_hash,
        data=dict(terms.data),
        seed=terms.seed,
        started=terms.started,
        finished=records.finished,
        open_intents=records.open_intents,
    )
    return Report(records, comparisons, result)


def _arm_result(records: RunRecords, comparisons: dict[str, Comparison], arm: str) -> ArmResult:
    """An arm over the tasks of its own comparison; the first one over those of the last comparison."""
    own, terms = records.arms[arm], records.terms
    if not comparisons:
        return _over(own, (), terms)
    if arm in comparisons:
        comparison = comparisons[arm]
        chance = comparison.after_pass_at_k
    else:
        comparison = next(reversed(comparisons.values()))
        chance = comparison.before_pass_at_k
    # Pass@k over the same tasks in both arms.
    return msgspec.structs.replace(_over(own, comparison.unpaired, terms), pass_at_k=chance)


def _over(arm: ArmRecords, unpaired: Collection[str], terms: Terms) -> ArmResult:
    """An arm over its graded tasks without the unpaired ones."""
    left_out = set(unpaired)
    counted: Rewards = {
        task: values for task, values in arm.rewards.items() if values and task not in left_out
    }
    estimate = mean_interval(
        [sum(values) / len(values) for values in counted.values()],
        confidence=terms.confidence,
        seed=terms.seed,
    )
    return ArmResult(
        mean=estimate.mean,
        interval=(estimate.low, estimate.high),
        pass_at_k=pass_at_k([v for v in counted.values() if len(v) >= terms.samples], terms.samples),
        samples=terms.samples,
        graded=sum(len(values) for values in arm.rewards.values()),
        truncated=arm.truncated,
        faulted=arm.faulted,
    )


def _arm_comparison(arm: str, against: str, found: Comparison) -> ArmComparison:
    return ArmComparison(
        arm=arm,
        against=against,
        tasks=found.tasks,
        difference=found.difference,
        interval=found.interval,
        interval_method=found.interval_method,
        p_value=found.p_value,
        test=found.test,
        verdict=found.verdict,
        sentence=found.sentence,
        unpaired=found.unpaired,
    )


def _sentence(arm: ArmResult, tasks: int, confidence: float) -> str:
    """The sentence of a single arm."""
    if arm.mean is None:
        return "no task has a graded answer."
    low, high = arm.interval
    return (
        f"mean reward {arm.mean:.3f} over n = {tasks} tasks "
        f"({100 * confidence:g} % interval {low:.3f} to {high:.3f})."
    )


def _step_result(step: StepTally, terms: Terms) -> StepResult:
    return StepResult(
        step=step.step,
        epoch=step.epoch,
        tasks=step.tasks,
        reward=mean_interval(step.means, confidence=terms.confidence, seed=terms.seed),
        groups=step.groups,
        operations=step.operations,
        library_version=step.library_version,
        library_size=step.library_size,
        accepted=step.accepted,
        gate=step.gate,
    )


def _library_result(library: ExperienceLibrary, terms: Terms) -> LibraryResult:
    prior = PromptAssembler(library, token_budget=terms.library_tokens).prior
    return LibraryResult(
        version=library.version,
        digest=library.digest,
        size=len(library),
        tokens=prior.tokens,
        in_prior=len(prior.ids),
    )


def _faults(records: RunRecords) -> dict[str, int]:
    """The faults counted by kind."""
    counts: Counter[str] = Counter()
    for row in records.faults:
        counts[row.kind] += row.count
    return dict(sorted(counts.items()))


def _usages(usage: Mapping[Role, Usage], terms: Terms) -> Usages:
    """The cost of each role and of all; dollars are unknown, not 0, where calls were made without a price."""
    unknown = ModelTerms("")
    models = {role: terms.models.get(role, unknown) for role in usage}
    unpriced = {
        role for role, model in models.items() if model.price is None and not model.free and usage[role].calls
    }
    saved = {role: saved_usd(spent, models[role].price) for role, spent in usage.items()}
    return Usages(
        total=_cost(sum(usage.values(), Usage()), sum(saved.values()), priced=not unpriced),
        by_role={
            role.value: _cost(spent, saved[role], priced=role not in unpriced)
            for role, spent in usage.items()
        },
    )


def _cost(spent: Usage, saved: float, *, priced: bool) -> Cost:
    return Cost(
        calls=spent.calls,
        input_tokens=spent.input_tokens,
        cached_tokens=spent.cached_tokens,
        cached_share=round(spent.cached_tokens / spent.input_tokens, 6) if spent.input_tokens else None,
        output_tokens=spent.output_tokens,
        usd=round(spent.usd, 9) if priced else None,
        saved_usd=round(saved, 9) if priced else None,
    )
