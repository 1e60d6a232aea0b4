"""A whole run, made by the room's own functions, for the tests of what shows it."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest
from tests.unit.report.source import terms

from tfgrpo.library import ExperienceLibrary
from tfgrpo.report.build import Report, report_of
from tfgrpo.report.reading import shown_tasks
from tfgrpo.report.records import (
    ArmRecords,
    FaultRow,
    ModelTerms,
    RunRecords,
    StepTally,
    TaskRow,
)
from tfgrpo.report.result import GateArm, Groups, OperationCounts, Result
from tfgrpo.types import Operation, OperationKind, Price, Role, Usage

FIRST = "When a ticket names an invoice and a delivery, route it by what the customer asks to be done."


def arms(*, third: bool = False) -> dict[str, ArmRecords]:
    rng = random.Random(3)
    baseline, learned, shuffled = {}, {}, {}
    for i in range(120):
        easy = rng.random()
        baseline[f"t{i:03d}"] = [float(rng.random() < easy * 0.8) for _ in range(4)]
        learned[f"t{i:03d}"] = [float(rng.random() < 0.15 + easy * 0.8) for _ in range(4)]
        shuffled[f"t{i:03d}"] = [float((i + k) % 5 < 2) for k in range(4)]
    baseline["t007"], shuffled["t008"] = [], []
    found = {"baseline": ArmRecords(baseline, truncated=3, faulted=4)}
    if third:
        found["shuffled"] = ArmRecords(shuffled, faulted=4)
    return found | {"learned": ArmRecords(learned)}


def learned_library() -> ExperienceLibrary:
    library = ExperienceLibrary.empty()
    for number, text in enumerate(("Route by what is asked.", "Read the whole ticket twice.")):
        source = f"practice/step=0001/task=p{number:02d}"
        add = Operation(OperationKind.ADD, text=text, source=source, sources=(source,), index=number)
        library, _ = library.apply([add])
    first = library.entries[0].id
    source = "practice/step=0003/task=p02"
    change = Operation(
        OperationKind.MODIFY, first, FIRST, library.version, source, sources=(source, "a talk")
    )
    library, _ = library.apply([change])
    return library


def whole(found: dict[str, ArmRecords]) -> RunRecords:
    price = Price(input=0.4, output=1.6, cached_input=0.2)
    rows = [
        TaskRow(
            task_id=task,
            input=f"My parcel {task} came open and the card was charged twice. Who takes care of it?",
            truth="billing",
            means=tuple(arm.mean(task) for arm in found.values()),
            answers=(('{"queue": "delivery"}',),) * (len(found) - 1) + (('{"queue": "billing"}',),),
        )
        for task in shown_tasks(found)
    ]
    return RunRecords(
        terms=terms(
            *found,
            samples=4,
            models={
                Role.ROLLOUT: ModelTerms("some-model", price),
                Role.DISTILLER: ModelTerms("some-model", price),
                Role.JUDGE: ModelTerms("some-model"),
            },
            started=1_760_000_000.0,
            settings="[run]\nseed = 7\n",
        ),
        arms=found,
        rows=tuple(rows),
        library=learned_library(),
        steps=tuple(
            StepTally(
                step=i + 1,
                epoch=i // 2 + 1,
                tasks=20,
                means=[((j * 7 + i * 3) % 11) / 11 * (0.7 + i / 20) for j in range(20)],
                groups=Groups(mixed=12 - i, uniform=7 + i, undergraded=1),
                operations=OperationCounts(added=3, modified=1, deleted=i % 2, dropped=2),
                library_version=i + 1,
                library_size=3 + 2 * i,
                accepted=i != 3,
                gate=(
                    GateArm(name="old", mean=0.51, rollouts=40),
                    GateArm(name="proposed", mean=0.55, rollouts=40),
                ),
            )
            for i in range(6)
        ),
        dropped=(),
        faults=(
            FaultRow(kind="model", error="ServerError", count=3, message="overloaded"),
            FaultRow(kind="verifier", error="VerifierError", count=1, message="mend it"),
        ),
        usage={
            Role.ROLLOUT: Usage(1460, 812_331, 640_112, 48_120, 0.4127),
            Role.DISTILLER: Usage(92, 61_870, 12_004, 9_981, 0.0634),
        },
        failures={"ServerError": 5, "RateLimitError": 17},
        open_intents=2,
        finished=1_760_001_334.0,
    )


@pytest.fixture(scope="session")
def report() -> Report:
    """Two arms, as every practice run has them."""
    return report_of(whole(arms()))


@pytest.fixture(scope="session")
def result(report: Report) -> Result:
    return report.result


@pytest.fixture(scope="session")
def records(report: Report) -> RunRecords:
    return report.records


@pytest.fixture(scope="session")
def three() -> Report:
    """Three arms, the one in the middle without any gain."""
    return report_of(whole(arms(third=True)))


@pytest.fixture(scope="session")
def single() -> Report:
    """An evaluation: one arm."""
    found = whole({"learned": arms()["learned"]})
    return report_of(
        replace(found, terms=msgspec.structs.replace(found.terms, kind="evaluation"), steps=(), faults=())
    )
