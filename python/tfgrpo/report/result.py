"""`result.json`: what a finished run says, as one struct whose JSON schema is published."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tfgrpo.report.comparison import Estimate, Verdict
from tfgrpo.types import Experience


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every part: immutable, strict on decoding, every field always written."""


class ArmResult(Record, frozen=True, kw_only=True):
    """One way of answering the held-out tasks. `mean` is Mean@k with its interval.

    It is over the tasks of the arm's comparison with the first arm; that of the first arm over those of the last
    comparison. Counts are over all tasks.
    """

    mean: float | None
    interval: tuple[float, float]
    pass_at_k: float | None
    samples: int
    graded: int
    truncated: int
    faulted: int


class ArmComparison(Record, frozen=True, kw_only=True):
    """An arm compared with the first one, `against`, over the `tasks` tasks that have graded answers in both."""

    arm: str
    against: str
    tasks: int
    difference: float | None
    interval: tuple[float, float]
    interval_method: str
    p_value: float
    test: str
    verdict: Verdict
    sentence: str
    unpaired: tuple[str, ...]


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
    """The library that the run ended with; `in_prior` of its `size` entries fit the prior of `tokens` tokens."""

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
    """Everything `result.json` holds.

    `arms` are in order; each after the first is compared with the first. Verdict, sentence and the numbers beside
    them at the top are those of the last comparison; without one (a single arm) they are None. Times are seconds
    since the epoch. `open_intents` counts calls that were in flight when a run was cut off: they may have been paid
    for without an answer. `faults` counts, by kind, what ended an attempt for good.
    """

    format: Literal["tfgrpo-result"] = "tfgrpo-result"
    format_version: Literal[2] = 2
    kind: Literal["practice", "evaluation"]
    name: str
    verdict: Verdict | None
    sentence: str
    tasks: int
    unpaired: tuple[str, ...]
    confidence: float
    difference: float | None
    interval: tuple[float, float] | None
    interval_method: str | None
    p_value: float | None
    test: str | None
    arms: dict[str, ArmResult]
    comparisons: tuple[ArmComparison, ...]
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
