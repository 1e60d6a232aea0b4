"""A store for reading that holds nothing: it makes its rollouts as they are asked for. And runs to read from it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import msgspec

from tfgrpo.engine.records import EvaluationRecord, GroupRecord, StepRecord, StoredLibrary, library_key
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.report.records import ModelTerms, Terms
from tfgrpo.types import (
    Ending,
    Fault,
    FaultKind,
    Message,
    Operation,
    OperationKind,
    PriorRef,
    Reward,
    Role,
    Rollout,
    Signal,
    Trajectory,
    Usage,
)

S = TypeVar("S", bound=msgspec.Struct)

#: Makes the rollout of an attempt from its key.
Maker = Callable[[Key], Rollout]


def terms(*arms: str, **changes: Any) -> Terms:
    parts: dict[str, Any] = {
        "kind": "practice",
        "name": "tickets",
        "arms": arms or ("baseline", "learned"),
        "samples": 2,
        "confidence": 0.95,
        "seed": 7,
        "library_tokens": 2_000,
        "models": {role: ModelTerms("some-model", free=True) for role in Role},
        "settings": '[run]\nname = "tickets"\n',
        "config_hash": "cd" * 32,
        "data": {"held_out": "01" * 32, "practice": "ef" * 32},
        "started": 100.0,
        "place": "runs/tickets-1",
    }
    return Terms(**(parts | changes))


def rollout(
    key: Key,
    reward: float | None = 1.0,
    *,
    answer: str = "42",
    ending: Ending = Ending.COMPLETED,
    fault: Fault | None = None,
    finished: float = 200.0,
) -> Rollout:
    return Rollout(
        task_id=key.task or "",
        index=key.index or 0,
        prior=PriorRef(0, ""),
        trajectory=Trajectory((Message("user", f"What is {key.task}?"), Message("assistant", answer))),
        ending=ending,
        reward=None if reward is None else Reward(reward),
        fault=fault,
        finished=finished,
        key=key.text,
    )


def faulted(key: Key, error: str = "ServerError", message: str = "overloaded") -> Rollout:
    fault = Fault(FaultKind.MODEL, error, message)
    return rollout(key, None, ending=Ending.FAULTED, fault=fault)


@dataclass
class FakeSource:
    """Records by kind and key; rollouts are made by `make` each time that they are read."""

    made: dict[Key, None] = field(default_factory=dict)
    make: Maker = rollout
    held: dict[str, dict[Key, msgspec.Struct]] = field(default_factory=dict)
    spent: dict[Role, Usage] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    left_open: int = 0
    looked_up: list[Key] = field(default_factory=list)

    def put(self, kind: str, key: Key, value: msgspec.Struct) -> None:
        self.held.setdefault(kind, {})[key] = value

    def evaluate(self, arm: str, tasks: int, samples: int) -> None:
        """A finished arm."""
        counts = {f"t{number:05d}": samples for number in range(tasks)}
        self.put("evaluation", Key(arm), EvaluationRecord(counts))
        self.made.update({Key(arm, task=t, index=index): None for t in counts for index in range(samples)})

    async def get(self, kind: str, key: Key, type: type[S]) -> S | None:  # noqa: A002
        if kind == "rollout" and key not in self.held.get(kind, {}):
            self.looked_up.append(key)
            return cast("S", self.make(key)) if key in self.made else None
        return cast("S | None", self.held.get(kind, {}).get(key))

    async def records(self, kind: str, type: type[S], under: str = "") -> AsyncIterator[tuple[Key, S]]:  # noqa: A002
        for key, value in self._all(kind):
            if key.text.startswith(under):
                yield key, cast("S", value)

    def _all(self, kind: str) -> Iterator[tuple[Key, msgspec.Struct]]:
        held = self.held.get(kind, {})
        if kind == "rollout" and self.made:
            yield from ((key, self.make(key)) for key in sorted(self.made))
        yield from ((key, held[key]) for key in sorted(held))

    def usage(self) -> Mapping[Role, Usage]:
        return self.spent

    def faults(self) -> Mapping[str, int]:
        return self.failed

    def open_intents(self) -> int:
        return self.left_open


def practised(source: FakeSource, steps: int = 2, groups: int = 3) -> ExperienceLibrary:
    """Closed steps with their groups and libraries; returns the last library."""
    library = ExperienceLibrary.empty()
    for step in range(1, steps + 1):
        operations = []
        for number in range(groups):
            key = Key("practice", step, task=f"p{number}")
            operations.append(
                Operation(
                    OperationKind.ADD,
                    text=f"In case {step} of {number} look twice.",
                    source=key.text,
                    sources=(key.text,),
                    index=number,
                    base_version=library.version,
                )
            )
            signal = (Signal.MIXED, Signal.UNIFORM, Signal.UNDERGRADED)[number % 3]
            rewards: tuple[float | None, ...] = {
                Signal.MIXED: (1.0, 0.0, None),
                Signal.UNIFORM: (None, number / groups),
                Signal.UNDERGRADED: (None, None),
            }[signal]
            fault = Fault(FaultKind.DISTILLER, "DistillError", "no JSON") if number == 1 else None
            source.put("group", key, GroupRecord(step, f"p{number}", signal, rewards, fault=fault))
        refused = Operation(
            OperationKind.DELETE, "E99", source=operations[0].source, base_version=library.version
        )
        library, report = library.apply([*operations, refused])
        source.put("library", library_key(library.digest), StoredLibrary(library.to_json().decode()))
        record = StepRecord(
            step=step,
            epoch=1,
            task_ids=tuple(f"p{number}" for number in range(groups)),
            chosen="consolidated",
            report=report,
            dropped=(),
            version=library.version,
            digest=library.digest,
        )
        source.put("step", Key("practice", step), record)
    return library


def by_chance(chances: Mapping[str, float], *, seed: int = 3, answer: str = "42") -> Maker:
    """Rollouts that are right with the chance of their arm, the same whenever they are made."""

    def make(key: Key) -> Rollout:
        easy = random.Random(f"{seed}/{key.task}").random()
        draw = random.Random(f"{seed}/{key.text}").random()
        return rollout(key, float(draw < chances[key.phase] + easy * 0.6), answer=answer)

    return make
