"""What the engine makes durable beside calls: groups, steps, and the shape of logical keys."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from tfgrpo.types import (
    ApplyReport,
    DroppedOperation,
    Fault,
    Operation,
    Role,
    SemanticAdvantage,
    Signal,
    Struct,
)


class GroupRecord(Struct, frozen=True):
    """One practice group, closed: its signal, what was drawn from it, and what broke while drawing it.

    `rewards` by rollout index, None where the rollout has none; `gain` is what the chosen lesson gained on
    re-run rollouts, None without `select = "gain"`.
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


class SingleRequests(Struct, frozen=True):
    """The endpoint of a role refused a group request: its calls ask for one answer each from then on."""

    role: Role


class StoredLibrary(Struct, frozen=True):
    """A library in the journal, under its digest, as its JSON text."""

    body: str


def key_of(*parts: str | int) -> str:
    """A logical key: parts joined by "/", numbers padded so that keys sort, ids quoted."""
    return "/".join(f"{part:04d}" if isinstance(part, int) else quote(part, safe="") for part in parts)


def key_of_index(key: str, index: int) -> str:
    """The logical key of one rollout of a group."""
    return f"{key}/{key_of(index)}"


def seed_of(seed: int, key: str) -> int:
    """The sampling seed of a call: a function of the run's seed and the call's key, 31 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:4], "big") >> 1
