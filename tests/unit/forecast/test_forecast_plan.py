"""The plan as data: the engine and the forecast read the same work, and its draws are those of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.world import make_config

from tfgrpo.engine.plan import Given, Method, Work, plan, probes, run_work, step_work, trial
from tfgrpo.run.inputs import Inputs
from tfgrpo.types import Role, Task

GAIN = {"practice__select": "gain", "practice__candidates": 2, "practice__gate_tasks": 3}


def planned(folder: Path, **overrides: Any) -> tuple[Method, tuple[Task, ...], list[Work]]:
    inputs = Inputs.load("practice", make_config(folder, **overrides))
    work = list(run_work(inputs.method, inputs.drawn(), inputs.held_out.tasks))
    return inputs.method, inputs.drawn(), work


def told(work: list[Work]) -> list[tuple[str, int | None, int, Given]]:
    return [(one.phase, one.step, one.attempts, one.given) for one in work]


def test_a_run_in_order(tmp_path: Path) -> None:
    _, _, work = planned(tmp_path)
    assert told(work) == [
        ("baseline", None, 5 * 2, Given.ALWAYS),
        ("practice", 1, 4 * 3, Given.ALWAYS),
        ("summarize", 1, 4 * 3, Given.LONG),
        ("advantage", 1, 4, Given.TEACHES),
        ("propose", 1, 4, Given.REVIEWED),
        ("consolidate", 1, 1, Given.SEVERAL),
        ("practice", 2, 2 * 3, Given.ALWAYS),
        ("summarize", 2, 2 * 3, Given.LONG),
        ("advantage", 2, 2, Given.TEACHES),
        ("propose", 2, 2, Given.REVIEWED),
        ("consolidate", 2, 1, Given.SEVERAL),
        ("learned", None, 5 * 2, Given.ALWAYS),
    ]
    assert [one.reads for one in work if one.role is Role.ROLLOUT] == [0, 0, 1, 2]


def test_a_gate_tries_lessons_and_libraries(tmp_path: Path) -> None:
    method, practice, work = planned(tmp_path, practice__probe_tasks=1, **GAIN)
    first = [one for one in work if one.step == 1]
    assert told(first)[2:4] == [
        ("advantage", 1, 4 * 2, Given.TEACHES),
        ("probe", 1, 4 * 2 * 2 * 3, Given.TEACHES),
    ]
    gate = [one for one in first if one.phase == "gate"]
    assert [(one.attempts, one.given, one.reads) for one in gate] == [
        (3 * 2, Given.CHANGED, 0),
        (3 * 2, Given.CHANGED, 1),
        (3 * 2, Given.SEVERAL, 1),
    ]
    # The engine draws the same tasks, one group and one library at a time.
    batch = plan(method, practice)[0]
    own = [probes(method, 1, task, batch.tasks).tasks for task in batch.tasks]
    assert [tasks[0] for tasks in own] == list(batch.tasks)
    assert next(one for one in first if one.phase == "probe").tasks == sum(own, ())
    assert all(one.tasks == trial(method, 1, "old", practice).tasks for one in gate)


def test_a_stale_step_reads_an_older_library_and_settles_with_the_newest(tmp_path: Path) -> None:
    method, practice, _ = planned(tmp_path, practice__epochs=2, practice__max_staleness=1)
    batches = plan(method, practice)
    assert [batch.reads for batch in batches] == [0, 0, 1, 2]
    reads = {one.phase: one.reads for one in step_work(method, batches[2], practice)}
    assert (reads["practice"], reads["propose"], reads["consolidate"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        ({"practice__summaries": "never"}, "summarize"),
        ({"practice__propose": "add"}, "propose"),
        ({"practice__consolidate": "none"}, "consolidate"),
        ({}, "probe"),
        ({}, "gate"),
    ],
)
def test_nothing_is_planned_that_the_method_leaves_out(
    tmp_path: Path, overrides: dict[str, Any], missing: str
) -> None:
    _, _, work = planned(tmp_path, **overrides)
    assert missing not in {one.phase for one in work}


def test_an_evaluation_has_one_arm(tmp_path: Path) -> None:
    inputs = Inputs.load("evaluation", make_config(tmp_path))
    work = list(run_work(inputs.method, inputs.drawn(), inputs.held_out.tasks))
    assert told(work) == [("learned", None, 10, Given.ALWAYS)]
