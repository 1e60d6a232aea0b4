"""From a run's records to its comparison and result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tfgrpo.engine.evaluate import Evaluation
from tfgrpo.engine.records import GroupRecord, StepRecord
from tfgrpo.library import PromptAssembler
from tfgrpo.models.pricing import saved_usd
from tfgrpo.report.comparison import Comparison, compare, mean_interval
from tfgrpo.report.records import RunRecords
from tfgrpo.report.result import (
    Arm,
    GateArm,
    Groups,
    LibraryResult,
    OperationCounts,
    Result,
    StepResult,
    build_result,
)
from tfgrpo.types import Ending, Role, Rollout, Signal


def result_of(records: RunRecords) -> tuple[Comparison | None, Result]:
    """The comparison (None for an evaluation, which has one arm) and the result of a run."""
    config, header = records.config, records.header
    samples, seed = config.evaluation.samples, config.run.seed
    confidence = config.evaluation.confidence
    baseline = None if records.baseline is None else _arm(records.baseline, samples)
    learned = _arm(records.learned, samples)
    comparison = None
    if baseline is not None:
        comparison = compare(
            baseline.rewards, learned.rewards, samples=samples, confidence=confidence, seed=seed
        )
    prior = PromptAssembler(records.library, token_budget=config.practice.library_tokens).prior
    endpoints = {role: config.model.role(role) for role in Role}
    result = build_result(
        kind=header.kind,
        name=config.run.name,
        baseline=baseline,
        learned=learned,
        comparison=comparison,
        confidence=confidence,
        usage=records.usage,
        saved={role: saved_usd(spent, endpoints[role].price) for role, spent in records.usage.items()},
        unpriced=[
            role for role, endpoint in endpoints.items() if endpoint.price is None and not endpoint.local
        ],
        faults=_faults(records.rollouts, records.groups, records.steps),
        steps=_steps(records.steps, records.groups, records.sizes, confidence, seed),
        library=LibraryResult(
            version=records.library.version,
            digest=records.library.digest,
            size=len(records.library),
            tokens=prior.tokens,
            in_prior=len(prior.ids),
        ),
        models={role: endpoint.label for role, endpoint in endpoints.items()},
        config_hash=header.config_hash,
        data={"held_out": header.held_out}
        | ({"practice": header.practice} if header.practice is not None else {}),
        seed=seed,
        started=header.started,
        finished=max((rollout.finished for rollout in records.rollouts), default=header.started),
        open_intents=records.open_intents,
    )
    return comparison, result


def _arm(evaluation: Evaluation, samples: int) -> Arm:
    rollouts = [rollout for group in evaluation.rollouts.values() for rollout in group]
    return Arm(
        rewards=dict(evaluation.rewards()),
        samples=samples,
        truncated=sum(rollout.ending is Ending.TRUNCATED for rollout in rollouts),
        faulted=sum(rollout.ending is Ending.FAULTED for rollout in rollouts),
    )


def _steps(
    steps: Sequence[StepRecord],
    groups: Sequence[GroupRecord],
    sizes: Mapping[int, int],
    confidence: float,
    seed: int,
) -> list[StepResult]:
    results = []
    for record in steps:
        own = [group for group in groups if group.step == record.step]
        graded = [[reward for reward in group.rewards if reward is not None] for group in own]
        means = [sum(rewards) / len(rewards) for rewards in graded if rewards]
        signals = Counter(group.signal for group in own)
        report = record.report
        results.append(
            StepResult(
                step=record.step,
                epoch=record.epoch,
                tasks=len(record.task_ids),
                reward=mean_interval(means, confidence=confidence, seed=seed),
                groups=Groups(
                    mixed=signals[Signal.MIXED],
                    uniform=signals[Signal.UNIFORM],
                    undergraded=signals[Signal.UNDERGRADED],
                ),
                operations=OperationCounts(
                    added=len(report.added),
                    modified=len(report.modified),
                    deleted=len(report.deleted),
                    kept=len(report.kept),
                    dropped=len(report.dropped) + len(record.dropped),
                ),
                library_version=record.version,
                library_size=sizes.get(record.version, 0),
                accepted=record.chosen != "old",
                gate=tuple(
                    GateArm(name=arm.name, mean=arm.mean, rollouts=arm.rollouts) for arm in record.gate
                ),
            )
        )
    return results


def _faults(
    rollouts: Iterable[Rollout], groups: Iterable[GroupRecord], steps: Iterable[StepRecord]
) -> dict[str, int]:
    """What ended for good as a fault, by kind."""
    faults = [rollout.fault for rollout in rollouts]
    faults += [group.fault for group in groups]
    faults += [step.fault for step in steps]
    return dict(Counter(fault.kind.value for fault in faults if fault is not None))
