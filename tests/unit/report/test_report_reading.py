"""A finished run read from its store: what counts, what does not, and how little is kept of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
from tests.unit.report.source import FakeSource, faulted, practised, rollout, terms

from tfgrpo.engine.records import EvaluationRecord, StepRecord
from tfgrpo.errors import ConfigError, JournalError
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.report.reading import read_arm, read_records, shown_tasks
from tfgrpo.report.records import SHOWN, ArmRecords, FaultRow
from tfgrpo.report.result import Groups, OperationCounts
from tfgrpo.types import Ending, Fault, FaultKind, Role, Rollout, Usage

START = ExperienceLibrary.empty()


def source_of(
    *arms: str, tasks: int = 3, samples: int = 2, make: Callable[[Key], Rollout] = rollout
) -> FakeSource:
    source = FakeSource(make=make)
    for arm in arms:
        source.evaluate(arm, tasks, samples)
    return source


async def test_rewards_are_kept_by_arm_and_task_and_endings_are_counted() -> None:
    def make(key: Key) -> Rollout:
        if key.phase == "learned" and key.task == "t00001":
            return faulted(key)
        if key.index == 1:
            return rollout(key, 0.5, ending=Ending.TRUNCATED, finished=300.0)
        return rollout(key, float(key.phase == "learned"))

    found = await read_records(source_of("baseline", "learned", make=make), terms(), START)
    assert list(found.arms) == ["baseline", "learned"]
    assert found.arms["baseline"] == ArmRecords({f"t0000{i}": [0.0, 0.5] for i in range(3)}, truncated=3)
    assert found.arms["learned"].rewards == {"t00000": [1.0, 0.5], "t00001": [], "t00002": [1.0, 0.5]}
    assert (found.arms["learned"].truncated, found.arms["learned"].faulted) == (2, 2)
    assert (found.finished, found.library) == (300.0, START)


async def test_everything_that_broke_is_counted_with_its_first_message() -> None:
    source = source_of(
        "baseline", "learned", make=lambda key: faulted(key, message=f"overloaded {key.phase}")
    )
    practised(source)
    key = Key("practice", 1, task="p0", index=0)
    source.put("rollout", key, faulted(key, "OtherError", "mend it"))
    source.failed, source.left_open = {"ServerError": 12, "RateLimitError": 3}, 2
    source.spent = {Role.ROLLOUT: Usage(5, 10)}
    found = await read_records(source, terms(), START)
    assert found.faults == (
        FaultRow(kind="model", error="ServerError", count=12, message="overloaded baseline"),
        FaultRow(kind="distiller", error="DistillError", count=2, message="no JSON"),
        FaultRow(kind="model", error="OtherError", count=1, message="mend it"),
    )
    assert (found.failures, found.open_intents) == ({"ServerError": 12, "RateLimitError": 3}, 2)
    assert found.usage == {Role.ROLLOUT: Usage(5, 10)}


@pytest.mark.parametrize(
    "change",
    [
        {"ending": Ending.CUT_OFF, "reward": None},
        {"ending": Ending.FAULTED, "reward": None, "fault": Fault(FaultKind.MODEL, "CutOffError", "late")},
    ],
)
async def test_stragglers_are_in_no_statistic(change: dict[str, Any]) -> None:
    def make(key: Key) -> Rollout:
        if key.index == 1:
            return rollout(key, answer="late", finished=900.0, **change)
        return rollout(key)

    found = await read_records(source_of("learned", make=make), terms("learned"), START)
    assert found.arms["learned"] == ArmRecords({f"t0000{i}": [1.0] for i in range(3)})
    assert (found.faults, found.finished) == ((), 200.0)
    assert {row.answers for row in found.rows} == {(("42",),)}


async def test_steps_are_counted_and_the_last_library_is_found() -> None:
    source = source_of("baseline", "learned")
    library = practised(source)
    found = await read_records(source, terms(), START)
    assert found.library.digest == library.digest
    assert [(step.step, step.tasks, step.library_version, step.library_size) for step in found.steps] == [
        (1, 3, 1, 3),
        (2, 3, 2, 6),
    ]
    for step in found.steps:
        assert step.means == [0.5, 1 / 3]  # the third group has no grade
        assert step.groups == Groups(mixed=1, uniform=1, undergraded=1)
        assert step.operations == OperationCounts(added=3, dropped=1)
        assert step.accepted
    assert [drop.operation.target for drop in found.dropped] == ["E99", "E99"]


async def test_a_step_that_kept_the_library_needs_no_other() -> None:
    source = source_of("baseline", "learned")
    library = practised(source, steps=1)
    report = library.apply(())[1]
    kept = StepRecord(2, 1, ("p0",), "old", report, (), library.version, library.digest)
    source.put("step", Key("practice", 2), kept)
    found = await read_records(source, terms(), START)
    assert found.library.digest == library.digest
    assert [(step.library_version, step.library_size, step.accepted) for step in found.steps] == [
        (1, 3, True),
        (1, 3, False),
    ]


async def test_steps_are_ordered_by_number_beyond_four_digits() -> None:
    source = source_of("baseline", "learned")
    library = practised(source, steps=2)
    first, second = source.held["step"].values()
    source.held["step"] = {}
    for step, record in ((9_999, first), (10_000, second)):
        source.put("step", Key("practice", step), msgspec.structs.replace(record, step=step))
    found = await read_records(source, terms(), START)
    assert [(step.step, step.library_size) for step in found.steps] == [(9_999, 3), (10_000, 6)]
    assert found.library.digest == library.digest


async def test_only_tasks_that_are_shown_are_looked_up_again() -> None:
    def make(key: Key) -> Rollout:
        moved = key.phase == "learned" and key.task == "t00449"
        return rollout(key, 0.0 if moved else 1.0, answer=f"{key.phase} {key.index}")

    source = source_of("baseline", "learned", tasks=450, samples=3, make=make)
    found = await read_records(source, terms(samples=3, inputs={"t00000": "Once?"}), START)
    assert len(found.rows) == SHOWN
    assert [row.task_id for row in found.rows[:3]] == ["t00449", "t00000", "t00001"]
    assert found.rows[0].changes == (-1.0,)
    assert found.rows[0].answers == (("baseline 0", "baseline 1"), ("learned 0", "learned 1"))
    assert [row.input for row in found.rows[:2]] == ["What is t00449?", "Once?"]
    assert len(source.looked_up) == SHOWN * 2 * 2  # two different answers are enough


async def test_truths_come_with_the_terms_or_not_at_all() -> None:
    told = terms("learned", truths={"t00000": "42", "t00001": None})
    found = await read_records(source_of("learned"), told, START)
    assert {row.task_id: row.truth for row in found.rows} == {"t00000": "42", "t00001": None, "t00002": None}


def test_rows_are_ordered_by_the_largest_change_of_any_arm() -> None:
    arms = {
        "a": ArmRecords({"x": [0.5], "y": [0.5], "z": [0.5], "v": []}),
        "b": ArmRecords({"x": [0.5], "y": [0.0], "z": [0.5], "v": [1.0]}),
        "c": ArmRecords({"x": [0.75], "y": [0.5], "z": [0.5], "v": [1.0]}),
    }
    assert shown_tasks(arms) == ["y", "x", "v", "z"]


async def test_one_arm_can_be_read_by_itself() -> None:
    def make(key: Key) -> Rollout:
        assert key.phase == "learned"
        return rollout(key, 0.25)

    source = source_of(
        "learned", "learned-2", make=lambda key: make(key) if key.phase == "learned" else rollout(key)
    )
    assert await read_arm(source, terms(), "learned") == ArmRecords(
        {f"t0000{i}": [0.25, 0.25] for i in range(3)}
    )
    with pytest.raises(ConfigError, match="the run is not finished"):
        await read_arm(source, terms(), "baseline")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("runs/a", "runs/a: the run is not finished; go on with: tfgrpo resume runs/a"),
        ("", "The run is not finished; go on with: tfgrpo resume RUN"),
    ],
)
async def test_an_unfinished_run_says_how_to_go_on(place: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await read_records(source_of("baseline"), terms(place=place), START)
    assert caught.value.message == message


@pytest.mark.parametrize("arms", [(), ("a", "a")])
async def test_arms_are_named_once_each(arms: tuple[str, ...]) -> None:
    source = source_of("a")
    with pytest.raises(ConfigError, match="name at least one, each once"):
        await read_records(source, terms(arms=arms), START)


async def test_missing_rollouts_and_libraries_are_damage() -> None:
    source = source_of("learned")
    source.put("evaluation", Key("learned"), EvaluationRecord({"t00000": 2, "t00001": 2, "t00002": 3}))
    with pytest.raises(JournalError, match=r"runs/tickets-1: 1 rollouts of the arm 'learned' are missing"):
        await read_records(source, terms("learned"), START)
    source = source_of("baseline", "learned")
    practised(source)
    source.held["library"].clear()
    with pytest.raises(JournalError, match="no library version 1"):
        await read_records(source, terms(), START)


async def test_a_long_read_can_be_cancelled() -> None:
    read = 0

    def make(key: Key) -> Rollout:
        nonlocal read
        read += 1
        if read == 1_500:
            scope.cancel()
        return rollout(key)

    source = source_of("learned", tasks=2_500, make=make)
    with anyio.CancelScope() as scope:
        await read_records(source, terms("learned"), START)
    assert scope.cancelled_caught
    assert read == 2_000


async def test_memory_grows_with_rewards_and_not_with_trajectories() -> None:
    length, total = 20_000, 0

    def make(key: Key) -> Rollout:
        nonlocal total
        total += length
        return rollout(key, float(key.index == 0), answer=f"{key.text} " + "y" * length)

    source = source_of("baseline", "learned", tasks=2_500, samples=4, make=make)
    assert len(source.made) == 20_000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        found = await read_records(source, terms(samples=4), START)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    examples = sum(len(text) for row in found.rows for texts in row.answers for text in texts)
    assert total > 400_000_000
    assert len(found.rows) == SHOWN
    assert peak - before < examples + 20_000_000
    assert after - before < examples + 10_000_000
    assert found.arms["learned"].rewards["t02499"] == [1.0, 0.0, 0.0, 0.0]
