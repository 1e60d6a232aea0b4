"""`result.json`: what a finished run says, as one struct whose JSON schema is published."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from tfgrpo.report.comparison import Comparison, Estimate, Rewards, Verdict, mean_interval, pass_at_k
from tfgrpo.types import Experience, Role, Usage


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every part: immutable, strict on decoding, every field always written."""


class ArmResult(Record, frozen=True, kw_only=True):
    """One evaluation arm. `mean` is Mean@k with its interval, over the paired tasks (see `Comparison`)."""

    mean: float | None
    interval: tuple[float, float]
    pass_at_k: float | None
    samples: int
    graded: int
    truncated: int
    faulted: int


class Cost(Record, frozen=True, kw_only=True):
    """Calls, tokens and US dollars; dollars are None where a call was made without a configured price.

    `cached_share` is that of the input tokens, None without any; `saved_usd` is what the cached tokens would have
    cost more at the full price.
    """

    calls: int
    input_tokens: int
    cached_tokens: int
    cached_share: float | None
    output_tokens: int
    usd: float | None
    saved_usd: float | None


class Usages(Record, frozen=True, kw_only=True):
    """What the run cost: in all, and by role."""

    total: Cost
    by_role: dict[str, Cost]


class Groups(Record, frozen=True, kw_only=True):
    """How many practice groups could teach (mixed), could not (uniform), or lacked graded rollouts."""

    mixed: int = 0
    uniform: int = 0
    undergraded: int = 0


class OperationCounts(Record, frozen=True, kw_only=True):
    """What one step did to the library."""

    added: int = 0
    modified: int = 0
    deleted: int = 0
    kept: int = 0
    dropped: int = 0


class GateArm(Record, frozen=True, kw_only=True):
    """One library tried at a step's gate, and its mean reward on re-run practice tasks."""

    name: str
    mean: float
    rollouts: int


class StepResult(Record, frozen=True, kw_only=True):
    """One practice step. `reward` is over tasks (each task's mean); the library is the one it led to."""

    step: int
    epoch: int
    tasks: int
    reward: Estimate
    groups: Groups
    operations: OperationCounts
    library_version: int
    library_size: int
    accepted: bool
    gate: tuple[GateArm, ...] = ()


class LibraryResult(Record, frozen=True, kw_only=True):
    """The library of the learned arm; `in_prior` of its `size` entries fit the prior of `tokens` tokens."""

    version: int
    digest: str
    size: int
    tokens: int
    in_prior: int


class LibraryFile(Record, frozen=True, kw_only=True):
    """A library file, `library/vNNNN.json`; written and checked by the Rust core, described here."""

    format: Literal["tfgrpo-library"]
    format_version: Literal[3]
    version: int
    next_id: int
    digest: str
    tokenizer: Literal["o200k", "cl100k"] = "o200k"
    entries: tuple[Experience, ...]


class Result(Record, frozen=True, kw_only=True):
    """Everything `result.json` holds. An evaluation has one arm and no verdict: those fields are None.

    Times are seconds since the epoch. `open_intents` counts calls that were in flight when a run was cut off:
    they may have been paid for without an answer. `faults` counts, by kind, what
    ended an attempt for good.
    """

    format: Literal["tfgrpo-result"] = "tfgrpo-result"
    format_version: Literal[1] = 1
    kind: Literal["practice", "evaluation"]
    name: str
    verdict: Verdict | None
    sentence: str
    tasks: int
    unpaired: tuple[str, ...]
    confidence: float
    baseline: ArmResult | None
    learned: ArmResult | None
    difference: float | None
    interval: tuple[float, float] | None
    interval_method: str | None
    p_value: float | None
    test: str | None
    usage: Usages
    faults: dict[str, int]
    groups: Groups
    steps: tuple[StepResult, ...]
    library: LibraryResult
    models: dict[str, str]
    config_hash: str
    data: dict[str, str]
    seed: int
    started: float
    finished: float
    open_intents: int


class Arm(Record, frozen=True, kw_only=True):
    """What one evaluation yields: rewards by task id, and how many of its samples ended otherwise."""

    rewards: dict[str, Sequence[float]]
    samples: int
    truncated: int = 0
    faulted: int = 0


def build_result(
    *,
    kind: Literal["practice", "evaluation"],
    name: str,
    baseline: Arm | None,
    learned: Arm | None,
    comparison: Comparison | None,
    confidence: float,
    usage: Mapping[Role, Usage],
    saved: Mapping[Role, float] | None = None,
    unpriced: Collection[Role] = (),
    faults: Mapping[str, int],
    steps: Sequence[StepResult] = (),
    library: LibraryResult,
    models: Mapping[Role, str],
    config_hash: str,
    data: Mapping[str, str],
    seed: int,
    started: float,
    finished: float,
    open_intents: int = 0,
) -> Result:
    """Put a run's parts together.

    Args:
        kind: what was run.
        name: of the run.
        baseline: the arm without the library, or None.
        learned: the arm with it, or None; at least one arm is given.
        comparison: `compare` of the two arms; None with one arm.
        confidence: of the intervals.
        usage: what was spent by role.
        saved: dollars that cached tokens saved, by role.
        unpriced: roles whose endpoint has no configured price: their dollars are unknown, not 0.
        faults: what broke for good, counted by kind.
        steps: the practice steps in order.
        library: the library of the learned arm.
        models: the label of each role's model.
        config_hash: digest of the configuration.
        data: digests of the data files by their key ("practice", "held_out").
        seed: of the run.
        started: seconds since the epoch.
        finished: seconds since the epoch.
        open_intents: calls in flight at a crash.
    """
    arms = [arm for arm in (baseline, learned) if arm is not None]
    tasks = comparison.tasks if comparison else sum(bool(values) for values in arms[0].rewards.values())
    left_out = set(comparison.unpaired) if comparison else set()
    before = _arm(baseline, left_out, confidence, seed) if baseline else None
    after = _arm(learned, left_out, confidence, seed) if learned else None
    if comparison and before and after:  # Pass@k over the same tasks in both arms
        before = msgspec.structs.replace(before, pass_at_k=comparison.baseline_pass_at_k)
        after = msgspec.structs.replace(after, pass_at_k=comparison.learned_pass_at_k)
    missing = [task for task, values in arms[0].rewards.items() if not values]
    return Result(
        kind=kind,
        name=name,
        verdict=comparison.verdict if comparison else None,
        sentence=comparison.sentence if comparison else _sentence(after or before, tasks, confidence),
        tasks=tasks,
        unpaired=comparison.unpaired if comparison else tuple(sorted(missing)),
        confidence=confidence,
        baseline=before,
        learned=after,
        difference=comparison.difference if comparison else None,
        interval=comparison.interval if comparison else None,
        interval_method=comparison.interval_method if comparison else None,
        p_value=comparison.p_value if comparison else None,
        test=comparison.test if comparison else None,
        usage=_usages(usage, saved or {}, unpriced),
        faults=dict(sorted(faults.items())),
        groups=Groups(
            mixed=sum(step.groups.mixed for step in steps),
            uniform=sum(step.groups.uniform for step in steps),
            undergraded=sum(step.groups.undergraded for step in steps),
        ),
        steps=tuple(steps),
        library=library,
        models={role.value: label for role, label in models.items()},
        config_hash=config_hash,
        data=dict(data),
        seed=seed,
        started=started,
        finished=finished,
        open_intents=open_intents,
    )


def encode(value: Result) -> bytes:
    """The bytes of `result.json`: indented, every field present, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def decode(data: bytes) -> Result:
    """Read `result.json` back.

    Raises:
        msgspec.ValidationError: it is not a result of this format version.
    """
    return msgspec.json.decode(data, type=Result)


def json_schema(of: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema (2020-12) of `Result` or `LibraryFile`, as published under docs/reference."""
    schema = msgspec.json.schema(of)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": of.__name__, **schema}


def _arm(arm: Arm, left_out: Collection[str], confidence: float, seed: int) -> ArmResult:
    counted: Rewards = {
        task: values for task, values in arm.rewards.items() if values and task not in left_out
    }
    estimate = mean_interval(
        [sum(values) / len(values) for values in counted.values()], confidence=confidence, seed=seed
    )
    return ArmResult(
        mean=estimate.mean,
        interval=(estimate.low, estimate.high),
        pass_at_k=pass_at_k([v for v in counted.values() if len(v) >= arm.samples], arm.samples),
        samples=arm.samples,
        graded=sum(len(values) for values in arm.rewards.values()),
        truncated=arm.truncated,
        faulted=arm.faulted,
    )


def _usages(usage: Mapping[Role, Usage], saved: Mapping[Role, float], unpriced: Collection[Role]) -> Usages:
    unknown = any(role in unpriced and spent.calls for role, spent in usage.items())
    return Usages(
        total=_cost(sum(usage.values(), Usage()), sum(saved.values()), priced=not unknown),
        by_role={
            role.value: _cost(spent, saved.get(role, 0.0), priced=role not in unpriced or not spent.calls)
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


def _sentence(arm: ArmResult | None, tasks: int, confidence: float) -> str:
    if arm is None or arm.mean is None:
        return "no task has a graded answer."
    low, high = arm.interval
    return (
        f"mean reward {arm.mean:.3f} over n = {tasks} tasks "
        f"({100 * confidence:g} % interval {low:.3f} to {high:.3f})."
    )
