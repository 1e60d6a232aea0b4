"""Everything a report rests on: the terms of a run, the store it is read from, and the records as they were read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.report.result import GateArm, Groups, OperationCounts
from tfgrpo.rundir import Kind
from tfgrpo.types import DroppedOperation, Price, Role, Struct, Usage

S = TypeVar("S", bound=msgspec.Struct)

#: Rows of a table of the page at most: of tasks, and of operations that were not applied.
SHOWN = 400


class Source(Protocol):
    """The reading half of a store: all that a report asks of it."""

    async def get(self, kind: str, key: Key, type: type[S]) -> S | None:  # noqa: A002
        """One record, or None."""
        ...

    def records(self, kind: str, type: type[S], under: str = "") -> AsyncIterator[tuple[Key, S]]:  # noqa: A002
        """The records of one kind in the order of their keys, never all at once in memory."""
        ...

    def usage(self) -> Mapping[Role, Usage]:
        """The cost of every finished attempt there is, by role."""
        ...

    def faults(self) -> Mapping[str, int]:
        """How many attempts at effects failed, by the name of the error."""
        ...

    def open_intents(self) -> int:
        """How many attempts at effects were in flight when an engine died, and have no outcome."""
        ...


class ModelTerms(Struct, frozen=True):
    """The model of one role: its label and its price; `free` says that it costs nothing, as the embedded one."""

    label: str
    price: Price | None = None
    free: bool = False


class Terms(Struct, frozen=True, kw_only=True):
    """What a run was asked to do, as far as its report depends on it.

    `arms` are names in order; every other one is compared with the first, and the last comparison is the
    headline. `settings` is the resolved configuration as TOML; `data` the digests of the data files by their key.
    `truths` and `inputs` are the held-out tasks' texts by id, empty where the data is no longer at hand. `place`
    names the run directory in advice.
    """

    kind: Kind
    name: str
    arms: tuple[str, ...]
    samples: int
    confidence: float
    seed: int
    library_tokens: int
    models: dict[Role, ModelTerms]
    settings: str
    config_hash: str
    data: dict[str, str]
    started: float
    truths: dict[str, str | None] = msgspec.field(default_factory=dict)
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    place: str = ""


class ArmRecords(Struct, frozen=True):
    """One arm: the rewards of each task, in the order of the data, and how many attempts ended otherwise.

    An attempt that broke has no reward, so a task may have fewer rewards than samples, or none.
    """

    rewards: dict[str, list[float]]
    truncated: int = 0
    faulted: int = 0

    def mean(self, task_id: str) -> float | None:
        """The mean reward of a task; None where nothing was graded."""
        rewards = self.rewards.get(task_id)
        return sum(rewards) / len(rewards) if rewards else None


class StepTally(Struct, frozen=True, kw_only=True):
    """One practice step: the mean reward of each of its tasks, and counts."""

    step: int
    epoch: int
    tasks: int
    means: list[float]
    groups: Groups
    operations: OperationCounts
    library_version: int
    library_size: int
    accepted: bool
    gate: tuple[GateArm, ...] = ()


class TaskRow(Struct, frozen=True, kw_only=True):
    """One held-out task as the page shows it; `means` and `answers` (examples) are in the order of the arms."""

    task_id: str
    input: str = ""
    truth: str | None = None
    means: tuple[float | None, ...]
    answers: tuple[tuple[str, ...], ...] = ()

    @property
    def changes(self) -> tuple[float | None, ...]:
        """The mean of each arm after the first minus that of the first; None where one has no grade."""
        first, *others = self.means
        return tuple(None if first is None or mean is None else mean - first for mean in others)


class FaultRow(Struct, frozen=True, kw_only=True):
    """Faults of one error class that ended an attempt for good, with the message of the first as a remedy."""

    kind: str
    error: str
    count: int
    message: str


@dataclass(frozen=True)
class RunRecords:
    """A finished run as its store tells it; stragglers that were cut off are in nothing of it.

    Attributes:
        terms: of the run.
        arms: by name, in the order of the terms.
        rows: the tasks that changed most, `SHOWN` of them at most.
        library: the last one.
        steps: the practice steps in order.
        dropped: operations that were not applied, `SHOWN` of them at most.
        faults: everything that broke for good, the most frequent first.
        usage: the cost by role.
        failures: attempts at effects that failed, by error, whether or not another one succeeded.
        open_intents: calls in flight at a crash.
        finished: when the last rollout ended.
    """

    terms: Terms
    arms: dict[str, ArmRecords]
    rows: tuple[TaskRow, ...]
    library: ExperienceLibrary
    steps: tuple[StepTally, ...]
    dropped: tuple[DroppedOperation, ...]
    faults: tuple[FaultRow, ...]
    usage: Mapping[Role, Usage]
    failures: Mapping[str, int]
    open_intents: int
    finished: float
