"""What the engine makes durable beside effects and rollouts: groups, steps, libraries, evaluations."""

from __future__ import annotations

from tfgrpo.errors import JournalError
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import (
    ApplyReport,
    DroppedOperation,
    Fault,
    Operation,
    SemanticAdvantage,
    Signal,
    Struct,
)


class GroupRecord(Struct, frozen=True):
    """One practice group, closed: its signal, what was drawn from it, and what broke while drawing it.

    `rewards` by rollout index, None where the rollout has none; `gain` is what the chosen lesson gained on
    re-run rollouts, None where no gate measured it.
    """

    step: int
    task_id: str
    signal: Signal
    rewards: tuple[float | None, ...]
    advantage: SemanticAdvantage | None = None
    operations: tuple[Operation, ...] = ()
    dropped: tuple[DroppedOperation, ...] = ()
    gain: float | None = None
    fault: Fault | None = None


class GroupPlan(Struct, frozen=True):
    """How many attempts a group with `practice.oversample` starts with; written before the first of them."""

    attempts: int


class GateArm(Struct, frozen=True):
    """One library tried at the gate: "old", "proposed" or "consolidated", and its mean reward there."""

    name: str
    mean: float
    rollouts: int


class StepRecord(Struct, frozen=True):
    """One step, closed. `chosen` names the library that became v_{n+1}; `gate` is empty without a gate."""

    step: int
    epoch: int
    task_ids: tuple[str, ...]
    chosen: str
    report: ApplyReport
    dropped: tuple[DroppedOperation, ...]
    version: int
    digest: str
    gate: tuple[GateArm, ...] = ()
    fault: Fault | None = None


class EvaluationRecord(Struct, frozen=True):
    """A finished evaluation: how many rollouts each task has, in the order of the data."""

    rollouts: dict[str, int]


class StoredLibrary(Struct, frozen=True):
    """A library in the store, under its digest, as its JSON text."""

    body: str


def library_key(digest: str) -> Key:
    """The key of the record of a library."""
    return Key("library", variant=digest)


def stored_library(stored: StoredLibrary | None, closed: StepRecord) -> ExperienceLibrary:
    """The library that a closed step led to, from its record.

    Raises:
        JournalError: there is none, or another one.
    """
    if stored is None:
        raise JournalError(
            f"The journal holds no library version {closed.version}, which step {closed.step} made."
        )
    library = ExperienceLibrary.from_json(stored.body.encode())
    if library.digest != closed.digest:
        raise JournalError(
            f"Library version {closed.version} in the journal has digest {library.digest}, "
            f"but step {closed.step} recorded {closed.digest}; the journal is damaged."
        )
    return library
