"""A whole run's result, made by the room's own functions, for the tests of what shows it."""

from __future__ import annotations

import random

import pytest

from tfgrpo.report.comparison import compare, mean_interval
from tfgrpo.report.page import TaskRow
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
from tfgrpo.types import Experience, OperationKind, Revision, Role, Usage


def arms() -> tuple[Arm, Arm]:
    rng = random.Random(3)
    baseline, learned = {}, {}
    for i in range(120):
        easy = rng.random()
        baseline[f"t{i:03d}"] = [float(rng.random() < easy * 0.8) for _ in range(4)]
        learned[f"t{i:03d}"] = [float(rng.random() < 0.15 + easy * 0.8) for _ in range(4)]
    baseline["t007"] = []
    return (
        Arm(rewards=dict(baseline), samples=4, truncated=3, faulted=4),
        Arm(rewards=dict(learned), samples=4),
    )


@pytest.fixture(scope="session")
def result() -> Result:
    baseline, learned = arms()
    return build_result(
        kind="practice",
        name="tickets",
        baseline=baseline,
        learned=learned,
        comparison=compare(baseline.rewards, learned.rewards, samples=4, seed=7),
        confidence=0.95,
        usage={
            Role.ROLLOUT: Usage(1460, 812_331, 640_112, 48_120, 0.4127),
            Role.DISTILLER: Usage(92, 61_870, 12_004, 9_981, 0.0634),
        },
        saved={Role.ROLLOUT: 0.128022, Role.DISTILLER: 0.002401},
        faults={"model": 3, "verifier": 1},
        steps=[
            StepResult(
                step=i + 1,
                epoch=i // 2 + 1,
                tasks=20,
                reward=mean_interval([((j * 7 + i * 3) % 11) / 11 * (0.7 + i / 20) for j in range(20)]),
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
        ],
        library=LibraryResult(version=6, digest="ab" * 32, size=2, tokens=61, in_prior=2),
        models=dict.fromkeys(Role, "some-model"),
        config_hash="cd" * 32,
        data={"practice": "ef" * 32, "held_out": "01" * 32},
        seed=7,
        started=1_760_000_000.0,
        finished=1_760_001_334.0,
        open_intents=2,
    )


@pytest.fixture(scope="session")
def library() -> tuple[Experience, ...]:
    first = "When a ticket names an invoice and a delivery, route it by what the customer asks to be done."
    return (
        Experience(
            id="E1",
            text=first,
            sources=("2/p014", "3/p002"),
            created=1,
            changed=3,
            tokens=24,
            credit=0.12,
            history=(
                Revision(1, OperationKind.ADD, "Route by what is asked.", ("1/p014",)),
                Revision(3, OperationKind.MODIFY, first, ("3/p002",)),
            ),
        ),
        Experience(
            id="E4",
            text="When two teams fit, choose the one that acts first.",
            parents=("E2", "E3"),
            created=4,
            changed=4,
            tokens=17,
        ),
    )


@pytest.fixture(scope="session")
def tasks() -> tuple[TaskRow, ...]:
    baseline, learned = arms()
    rows = []
    for task in baseline.rewards:
        before, after = baseline.rewards[task], learned.rewards[task]
        rows.append(
            TaskRow(
                task_id=task,
                input=f"My parcel {task} came open and the card was charged twice. Who takes care of it?",
                truth="billing",
                baseline_mean=sum(before) / len(before) if before else None,
                learned_mean=sum(after) / len(after),
                baseline_answers=('{"queue": "delivery"}',),
                learned_answers=('{"queue": "billing"}',),
            )
        )
    return tuple(rows)
