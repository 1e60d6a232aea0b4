"""A whole run against scripted models: what it learns, what it records, how it stops and goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from tests.support.world import Recorded, make_config, models

import tfgrpo
from tfgrpo.errors import (
    AuthenticationError,
    BudgetError,
    ConfigError,
    ConnectError,
    InterruptedRunError,
    RunStoppedError,
    UnmeasuredError,
)
from tfgrpo.events import EffectFinished, Event, GroupFinished, Warned
from tfgrpo.journal import JournalReader
from tfgrpo.rundir import RUN, Header
from tfgrpo.testing import FaultPlan, FaultType, PlannedFault, ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import Ending, ModelRequest, Signal

SCRIPT = practice_script()


def run_practice(config: tfgrpo.Config, model: ScriptedModel, folder: Path, **more: object) -> tfgrpo.Run:
    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(config, models=models(model), run_dir=folder / "run", **more)  # type: ignore[arg-type]

    return VirtualClock().run(main)


def run_resume(model: ScriptedModel, folder: Path, **more: object) -> tfgrpo.Run:
    async def main() -> tfgrpo.Run:
        return await tfgrpo.resume(folder / "run", models=models(model), **more)  # type: ignore[arg-type]

    return VirtualClock().run(main)


def test_a_run_ends_with_a_library_a_verdict_and_its_files(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice=8, practice__epochs=2, practice__consolidate="none")
    run = run_practice(config, ScriptedModel(SCRIPT), tmp_path)
    assert run.comparison is not None
    assert run.comparison.tasks == 5
    assert run.result.verdict == run.comparison.verdict
    assert len(run.library) > 0
    assert run.directory is not None
    result = json.loads((run.directory / "result.json").read_text("utf-8"))
    assert result["verdict"] == run.comparison.verdict
    assert result["library"]["digest"] == run.library.digest
    assert result["config_hash"] == config.digest()
    assert (run.directory / "report.html").read_text("utf-8").startswith("<!doctype html>")
    newest = run.directory / "library" / f"v{run.library.version:04d}.json"
    assert tfgrpo.ExperienceLibrary.load(newest) == run.library
    messages = (
        tfgrpo.PromptAssembler(run.library, token_budget=2000).assemble(tfgrpo.Task("x", "Where?")).chat
    )
    assert messages[-1] == {"role": "user", "content": "Where?"}
    assert "[E" in messages[0]["content"]


def test_every_planned_rollout_has_one_record_and_groups_one_signal(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice=6)
    run_practice(config, ScriptedModel(SCRIPT), tmp_path)
    recorded = Recorded(tmp_path)
    assert len(recorded.of("practice")) == 6 * 3
    assert len(recorded.of("baseline")) == len(recorded.of("learned")) == 5 * 2
    assert len(recorded.groups) == 6
    assert [len(step.task_ids) for step in recorded.steps] == [4, 2]
    for key, rollout in recorded.rollouts.items():
        assert (rollout.key, rollout.task_id, rollout.index) == (key.text, key.task, key.index)
    for group in recorded.groups.values():
        assert (group.signal is Signal.MIXED) == (len(set(group.rewards)) > 1)


def test_the_result_counts_what_the_store_holds(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice=6)
    faults = FaultPlan().when(lambda call: "task=t0/" in call.key, FaultType.CONTEXT_LENGTH)
    run = run_practice(config, ScriptedModel(SCRIPT, faults=faults), tmp_path)
    recorded = Recorded(tmp_path)
    counted, signals = run.result.groups, recorded.signals()
    assert counted.mixed + counted.uniform + counted.undergraded == 6
    assert counted.mixed == signals[Signal.MIXED]
    assert counted.uniform == signals[Signal.UNIFORM]
    assert counted.undergraded == signals[Signal.UNDERGRADED] == 1
    assert run.result.faults == recorded.faults == {"model": 6}
    assert run.library == recorded.library


def test_one_request_asks_for_a_whole_group_where_the_model_can(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice=4)
    whole, single = ScriptedModel(SCRIPT), ScriptedModel(SCRIPT, group_limit=1)
    run_practice(config, whole, tmp_path)
    assert {r.n for r in whole.requests if r.response_schema is None} == {2, 3}
    other = tmp_path / "single"
    other.mkdir()
    run_practice(config, single, other)
    assert {request.n for request in single.requests} == {1}
    seeds = [request.seed for request in single.requests]
    assert len(set(seeds)) == len(seeds)


def test_temperatures_do_not_leak(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, practice__temperature=0.9, evaluation__temperature=0.1, distill__temperature=0.5
    )
    model = ScriptedModel(SCRIPT)
    run_practice(config, model, tmp_path)
    practice = {f"t{number}" for number in range(6)}
    for request in model.requests:
        question = request.messages[-1].content
        if request.response_schema is not None:
            assert request.temperature == 0.5
        else:
            crossing = question.split("crossing ")[1].split("?")[0]
            assert request.temperature == (0.9 if f"t{crossing}" in practice else 0.1)


@pytest.mark.parametrize("after", [0, 1, 7, 14])
def test_a_stopped_run_resumes_and_pays_nothing_twice(tmp_path: Path, after: int) -> None:
    config = make_config(tmp_path)
    folder = tmp_path / "whole"
    folder.mkdir()
    reference = ScriptedModel(SCRIPT, latency=1.0)
    run_practice(config, reference, folder)
    whole = Recorded(folder)

    stop, seen = tfgrpo.StopSwitch(), 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        if isinstance(event, EffectFinished):
            seen += 1
        if seen >= after:
            stop.stop()

    first = ScriptedModel(SCRIPT, latency=1.0)
    with pytest.raises(RunStoppedError, match="tfgrpo resume") as caught:
        run_practice(config, first, tmp_path, hooks=[interrupt], stop=stop)
    assert isinstance(caught.value.reason, InterruptedRunError)
    assert not (tmp_path / "run" / "result.json").exists()
    second = ScriptedModel(SCRIPT, latency=1.0)
    run_resume(second, tmp_path)
    resumed = Recorded(tmp_path)
    assert resumed.library.digest == whole.library.digest
    assert resumed.verdict == whole.verdict
    assert first.served + second.served == reference.served
    third = ScriptedModel(SCRIPT)
    run_resume(third, tmp_path)
    assert Recorded(tmp_path).verdict == whole.verdict
    assert third.calls.total() == 0


@pytest.mark.parametrize("after", range(6, 14))
def test_a_fault_that_was_recorded_does_not_hinder_resuming(tmp_path: Path, after: int) -> None:
    """Lessons that failed before the stop stay failed; the healed endpoint serves the others."""
    config = make_config(tmp_path, practice__batch_size=6, limits__attempts=1)
    stop, seen = tfgrpo.StopSwitch(), 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, EffectFinished)
        if seen >= after:
            stop.stop()

    faults = FaultPlan().when(
        lambda call: call.key.startswith(
            ("distill/step=0001/task=t1/", "distill/step=0001/task=t3/", "consolidate")
        ),
        FaultType.SERVER_ERROR,
    )
    with pytest.raises(RunStoppedError):
        run_practice(config, ScriptedModel(SCRIPT, 0.5, faults), tmp_path, hooks=[interrupt], stop=stop)
    run_resume(ScriptedModel(SCRIPT), tmp_path)
    assert len(Recorded(tmp_path).verdict) >= 2 * 5 * 2


def test_a_spent_budget_stops_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice=12, budget__tokens=700)
    model = ScriptedModel(SCRIPT)
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    with pytest.raises(RunStoppedError, match="budget") as caught:
        run_practice(config, model, tmp_path, hooks=[listen])
    assert isinstance(caught.value.reason, BudgetError)
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        spent = sum(usage.tokens for usage in reader.usage_by_role().values())
    assert 0 < spent <= 700
    with pytest.raises(ConfigError, match=r"only these .*limits\.\*"):
        run_resume(model, tmp_path, overrides={"practice.epochs": 2})
    run_resume(model, tmp_path, overrides={"budget.tokens": 10**7})
    assert sum(usage.tokens for usage in Recorded(tmp_path).usage.values()) > 700
    assert set(model.served.values()) == {1}


def test_money_without_prices_is_told_at_once(tmp_path: Path) -> None:
    told: list[Event] = []
    run_practice(make_config(tmp_path, budget__usd=1.0), ScriptedModel(SCRIPT), tmp_path, hooks=[told.append])
    warned = [event.message for event in told if isinstance(event, Warned)]
    assert [message.partition(":")[0] for message in warned] == ["budget.usd cannot bind"] * 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(FaultType.AUTHENTICATION, AuthenticationError), (FaultType.CONNECT, ConnectError)],
)
def test_what_no_call_can_escape_stops_the_run(
    tmp_path: Path, fault: FaultType, reason: type[Exception]
) -> None:
    config = make_config(tmp_path, limits__attempts=2)
    plan = FaultPlan().when(lambda call: call.nth > 8, fault)
    first = ScriptedModel(SCRIPT, latency=0.1, faults=plan)
    with pytest.raises(RunStoppedError) as caught:
        run_practice(config, first, tmp_path)
    assert isinstance(caught.value.reason, reason)
    second = ScriptedModel(SCRIPT)
    run_resume(second, tmp_path)
    assert len(Recorded(tmp_path).verdict) >= 2 * 5 * 2
    assert set((first.served + second.served).values()) == {1}


@pytest.mark.parametrize("concurrency", [1, 64])
def test_an_endpoint_that_was_never_reached_stops_the_run_soon(tmp_path: Path, concurrency: int) -> None:
    """However many calls share the failures: a wrong address is told within a minute."""
    config = make_config(tmp_path, practice=64, held_out=64, limits__concurrency=concurrency)
    model = ScriptedModel(SCRIPT, faults=FaultPlan().when(lambda call: True, FaultType.CONNECT))
    clock = VirtualClock(grace=0.05)

    async def main() -> None:
        await tfgrpo.practice(config, run_dir=tmp_path / "run", models=models(model))

    with pytest.raises(RunStoppedError) as caught:
        clock.run(main)
    assert isinstance(caught.value.reason, ConnectError)
    assert clock.now < 60


def test_a_fault_is_never_a_reward(tmp_path: Path) -> None:
    """One rollout call of a group fails for good: the group is refilled, the fault is counted."""
    config = make_config(tmp_path, practice=4, practice__group_size=3, practice__min_graded=3)
    broken = tuple(f"practice/step=0001/task=t0/try={index:04d}//" for index in range(3))
    plan = FaultPlan().when(lambda call: call.key.startswith(broken), FaultType.INVALID_REQUEST)
    model = ScriptedModel(practice_script(base=1.0), faults=plan, group_limit=1)
    groups = []

    def listen(event: Event) -> None:
        if isinstance(event, GroupFinished):
            groups.append(event.group)

    run_practice(config, model, tmp_path, hooks=[listen])
    recorded = Recorded(tmp_path)
    group = next(group for group in groups if group.task_id == "t0")
    assert [rollout.ending for rollout in group.rollouts] == [Ending.FAULTED] * 3 + [Ending.COMPLETED] * 3
    assert all(rollout.reward is None for rollout in group.rollouts[:3])
    assert {g.signal for g in groups} == {Signal.UNIFORM}
    assert recorded.faults == {"model": 3}
    assert len(recorded.library) == 0


def test_a_group_that_stays_short_is_undergraded_and_reported(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice=4)
    plan = FaultPlan().when(
        lambda call: call.key.startswith("practice/step=0001/task=t0/"), FaultType.CONTEXT_LENGTH
    )
    run_practice(config, ScriptedModel(SCRIPT, faults=plan), tmp_path)
    recorded = Recorded(tmp_path)
    assert recorded.signals()[Signal.UNDERGRADED] == 1
    assert recorded.faults["model"] == 6


def test_a_distiller_fault_costs_one_lesson_and_not_the_run(tmp_path: Path) -> None:
    def broken(request: ModelRequest) -> str:
        answer = SCRIPT(request)
        return "no json here" if request.response_schema else str(answer)

    run_practice(make_config(tmp_path), ScriptedModel(broken), tmp_path)
    recorded = Recorded(tmp_path)
    assert len(recorded.verdict) == 2 * 5 * 2
    assert len(recorded.library) == 0
    assert recorded.faults["distiller"] == recorded.signals()[Signal.MIXED] > 0


def test_summaries_that_fail_cost_their_lessons_and_not_the_run(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__summaries="always")
    faults = FaultPlan().when(lambda call: "/summary/" in call.key, FaultType.CONTEXT_LENGTH)
    run_practice(config, ScriptedModel(SCRIPT, faults=faults), tmp_path)
    recorded = Recorded(tmp_path)
    assert len(recorded.verdict) == 2 * 5 * 2
    assert recorded.faults == {"distiller": recorded.signals()[Signal.MIXED]}
    assert len(recorded.library) == 0


def test_without_ground_truth_practice_tasks_need_no_truth(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, practice=6, truth=False, practice__ground_truth=False, practice__consolidate="none"
    )
    run_practice(config, ScriptedModel(SCRIPT), tmp_path)
    recorded = Recorded(tmp_path)
    assert recorded.signals()[Signal.MIXED] > 0
    assert len(recorded.library) > 0


def test_selection_by_gain_refuses_lessons_that_do_not_help(tmp_path: Path) -> None:
    """In a world where experiences hurt, the gate keeps the library empty."""
    harmful = practice_script(base=0.7, gain=-0.6)
    config = make_config(tmp_path, practice=8, practice__select="gain", practice__candidates=2)
    run_practice(config, ScriptedModel(harmful), tmp_path)
    assert len(Recorded(tmp_path).library) == 0
    helpful = practice_script(base=0.3, gain=0.6)
    folder = tmp_path / "helpful"
    folder.mkdir()
    run_practice(config, ScriptedModel(helpful), folder)
    recorded = Recorded(folder)
    assert len(recorded.library) > 0
    for step in recorded.steps:
        means = {arm.name: arm.mean for arm in step.gate}
        assert not means or means[step.chosen] == max(means.values())
    for group in recorded.groups.values():
        assert group.gain is None or group.advantage is None or group.gain > 0


def test_selection_by_gain_works_without_group_requests(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice=8, practice__select="gain", practice__candidates=3)
    model = ScriptedModel(practice_script(base=0.3, gain=0.6), group_limit=1)
    run_practice(config, model, tmp_path)
    recorded = Recorded(tmp_path)
    assert len(recorded.library) > 0
    assert recorded.faults == {}


def test_a_consolidation_that_keeps_everything_is_obeyed(tmp_path: Path) -> None:
    def keep(request: ModelRequest) -> str:
        if request.schema_name == "consolidate":
            return '{"operations": []}'
        return str(SCRIPT(request))

    run_practice(make_config(tmp_path, practice__batch_size=6), ScriptedModel(keep), tmp_path)
    recorded = Recorded(tmp_path)
    assert recorded.signals()[Signal.MIXED] > 1
    assert len(recorded.library) == 0


def test_without_ground_truth_a_failing_verifier_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strict_grader.py").write_text(
        "def reward(task, answer):\n    return float(task.truth in answer)\n", "utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = make_config(
        tmp_path,
        truth=False,
        practice__ground_truth=False,
        practice__consolidate="none",
        verifier__kind="strict_grader:reward",
    )
    run_practice(config, ScriptedModel(SCRIPT), tmp_path)
    recorded = Recorded(tmp_path)
    assert recorded.signals()[Signal.UNDERGRADED] == 0
    assert len(recorded.library) > 0


def test_an_arm_without_a_grade_ends_the_run_and_says_why(tmp_path: Path) -> None:
    faults = FaultPlan().when(lambda call: call.key.startswith("baseline/"), FaultType.CONTEXT_LENGTH)
    with pytest.raises(UnmeasuredError, match="20 of 20 attempts of the arm 'baseline' ended in a fault"):
        run_practice(make_config(tmp_path), ScriptedModel(SCRIPT, faults=faults), tmp_path)
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_provider_that_asks_for_hours_stops_the_run(tmp_path: Path) -> None:
    fault = PlannedFault(FaultType.RATE_LIMITED, retry_after=43_200.0)
    faults = FaultPlan().when(lambda call: call.nth == 4, fault)
    with pytest.raises(RunStoppedError):
        run_practice(make_config(tmp_path), ScriptedModel(SCRIPT, 0.5, faults), tmp_path)


def test_a_stop_does_not_wait_for_a_call_that_hangs(tmp_path: Path) -> None:
    clock, stop = VirtualClock(grace=0.1), tfgrpo.StopSwitch()
    config = make_config(tmp_path)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(later)
            hanging = ScriptedModel(SCRIPT, latency=500.0)
            await tfgrpo.practice(config, models=models(hanging), run_dir=tmp_path / "run", stop=stop)

    async def later() -> None:
        await anyio.sleep(10.0)
        stop.stop()

    with pytest.raises(ExceptionGroup) as caught:
        clock.run(main)
    assert caught.group_contains(RunStoppedError)
    assert clock.now < 60.0
    assert Recorded(tmp_path).open_intents > 0
    spent = []

    def listen(event: Event) -> None:
        if isinstance(event, EffectFinished):
            spent.append(event.total.calls)

    run_resume(ScriptedModel(SCRIPT), tmp_path, hooks=[listen])
    assert spent[0] > 1, "what was in flight counts as possibly paid"


def test_group_size_one_learns_from_what_went_wrong(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__group_size=1, practice__consolidate="none")
    run_practice(config, ScriptedModel(practice_script(base=0.0)), tmp_path)
    recorded = Recorded(tmp_path)
    assert recorded.signals() == {Signal.UNIFORM: 6}
    assert len(recorded.library) > 0


def test_evaluate_answers_held_out_tasks_only(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    model = ScriptedModel(SCRIPT)

    async def main() -> tfgrpo.Run:
        return await tfgrpo.evaluate(config, models=models(model), run_dir=tmp_path / "run")

    run = VirtualClock().run(main)
    assert run.comparison is None
    assert len(model.requests) == 5
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        header = reader.get("run", RUN, Header)
    assert header is not None
    assert header.kind == "evaluation"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "practice.jsonl").write_text('{"id": 1, "input": "x"}\n', "utf-8"), "practice.jsonl"),
        (lambda f: (f / "held_out.jsonl").unlink(), "held_out"),
    ],
)
def test_changed_inputs_are_told_on_resume(
    tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    config = make_config(tmp_path)
    run_practice(config, ScriptedModel(SCRIPT), tmp_path)
    change(tmp_path)
    with pytest.raises(ConfigError, match=told):
        run_resume(ScriptedModel(SCRIPT), tmp_path)


def test_held_out_tasks_must_be_new(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    (tmp_path / "held_out.jsonl").write_bytes((tmp_path / "practice.jsonl").read_bytes())
    with pytest.raises(ConfigError, match="also practice task"):
        run_practice(config, ScriptedModel(SCRIPT), tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["practice", "held_out"])
def test_a_missing_truth_is_told_before_anything_is_paid(tmp_path: Path, name: str) -> None:
    config = make_config(tmp_path)
    with (tmp_path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "open", "input": "Nobody knows?"}\n')
    model = ScriptedModel(SCRIPT)
    with pytest.raises(ConfigError, match=f"data.{name}: 1 of .* 'open'"):
        run_practice(config, model, tmp_path)
    assert model.calls.total() == 0


def test_a_run_directory_is_used_once(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run_practice(config, ScriptedModel(SCRIPT), tmp_path)
    with pytest.raises(ConfigError, match="tfgrpo resume"):
        run_practice(config, ScriptedModel(SCRIPT), tmp_path)
