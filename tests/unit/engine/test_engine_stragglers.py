"""What bounds a rollout: its deadline, and a group that closes without its stragglers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.dispatching import opened
from tests.support.steady import SteadyClock
from tests.support.world import Recorded, make_config, models

import tfgrpo
from tfgrpo.errors import JournalError, RunStoppedError, TaskTimeoutError
from tfgrpo.events import EffectFinished, Event
from tfgrpo.journal import Journal
from tfgrpo.keys import Key, owner_text
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.protocols import Observer
from tfgrpo.rollout import AttemptScope, Deadline, run_attempt
from tfgrpo.testing import FaultPlan, FaultType, PlannedFault, ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script, seeded
from tfgrpo.types import Ending, FaultKind, ModelReply, ModelRequest, Reward, Rollout, Signal, Task

SCRIPT = practice_script()


def run(
    folder: Path, model: ScriptedModel, *, clock: SteadyClock | None = None, **overrides: Any
) -> tfgrpo.Run:
    config = make_config(folder, **overrides)

    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(config, models=models(model), run_dir=folder / "run")

    return (clock or SteadyClock()).run(main)


def go_on(folder: Path, model: ScriptedModel) -> tfgrpo.Run:
    async def main() -> tfgrpo.Run:
        return await tfgrpo.resume(folder / "run", models=models(model))

    return SteadyClock().run(main)


def rollouts_of(folder: Path, phase: str = "practice") -> dict[Key, Rollout]:
    return Recorded(folder).of(phase)


def slow(share: float, seconds: float = 500.0) -> Callable[[ModelRequest], float]:
    """Latencies of which a share is far beyond the others."""
    return lambda request: seconds if seeded(request).random() < share else 1.0


# --- the deadline ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_limit", [None, 1])
def test_a_hanging_rollout_becomes_a_fault_and_is_paid_once(tmp_path: Path, group_limit: int | None) -> None:
    def latency(request: ModelRequest) -> float:
        hangs = "crossing 0?" in request.messages[-1].content and request.response_schema is None
        return 1e9 if hangs else 1.0

    model = ScriptedModel(SCRIPT, latency, group_limit=group_limit)
    run(tmp_path, model, practice=4, practice__refills=0, limits__task_timeout=100.0)
    rollouts = rollouts_of(tmp_path)
    hung = [rollout for rollout in rollouts.values() if rollout.task_id == "t0"]
    assert [rollout.fault and rollout.fault.error for rollout in hung] == ["TaskTimeoutError"] * 3
    assert all(rollout.reward is None and rollout.ending is Ending.FAULTED for rollout in hung)
    assert all(r.fault is not None and r.fault.kind is FaultKind.MODEL for r in hung)
    assert sum(rollout.reward is not None for rollout in rollouts.values()) == 9
    assert max(model.calls.values()) == 1, "who shared the request must not ask once more"


def test_waiting_for_a_slot_costs_no_time_of_the_task(tmp_path: Path) -> None:
    clock = SteadyClock()
    model = ScriptedModel(SCRIPT, 60.0, group_limit=1)
    run(tmp_path, model, clock=clock, practice=4, limits__concurrency=1, limits__task_timeout=100.0)
    assert clock.now > 12 * 60.0
    assert all(rollout.fault is None for rollout in rollouts_of(tmp_path).values())


def test_retries_count_from_the_first_launch(tmp_path: Path) -> None:
    faults = FaultPlan().when(
        lambda call: call.key.startswith("practice/step=0001/task=t0/"), FaultType.SERVER_ERROR
    )
    model = ScriptedModel(SCRIPT, 45.0, faults, group_limit=1)
    run(tmp_path, model, practice=2, practice__refills=0, limits__task_timeout=100.0, limits__attempts=50)
    errors = Counter(r.fault.error for r in rollouts_of(tmp_path).values() if r.fault is not None)
    assert errors == {"TaskTimeoutError": 3}
    assert all(2 <= n <= 3 for key, n in model.calls.items() if key.startswith("practice/step=0001/task=t0/"))


def test_a_provider_that_paces_us_makes_no_faults(tmp_path: Path) -> None:
    """429s for longer than the task's timeout: the clock stands between a refusal and the next launch."""
    limited = PlannedFault(FaultType.RATE_LIMITED, retry_after=150.0)
    faults = FaultPlan().when(
        lambda call: call.key.startswith("practice/step=0001/task=t0/") and call.attempt <= 3, limited
    )
    clock = SteadyClock()
    model = ScriptedModel(SCRIPT, 5.0, faults)
    run(tmp_path, model, clock=clock, practice=2, limits__task_timeout=100.0)
    assert clock.now > 450.0
    assert all(rollout.fault is None for rollout in rollouts_of(tmp_path).values())


def test_a_clock_that_stood_goes_on_where_it_was() -> None:
    async def work(deadline: Deadline) -> None:
        with deadline:
            watch = deadline.watch()
            watch.launched()
            await anyio.sleep(60.0)
            watch.queued()
            await anyio.sleep(500.0)
            watch.launched()
            watch.launched()
            await anyio.sleep(500.0)

    async def main() -> float:
        with pytest.raises(TaskTimeoutError):
            await work(Deadline(100.0))
        return anyio.current_time()

    assert VirtualClock().run(main) == 600.0


class Slow:
    """An agent that asks three times and thinks in between, and a verifier that takes its time."""

    def __init__(self, thinking: float, grading: float) -> None:
        self.thinking = thinking
        self.grading = grading

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        for _ in range(3):
            await scope.ask(ModelRequest(scope.messages))
            await anyio.sleep(self.thinking)
        return "x"

    async def verify(self, scope: tfgrpo.Scope) -> Reward:
        await anyio.sleep(self.grading)
        return Reward(1.0)


class Queued(ScriptedModel):
    """Every call stands in a queue of ours for 1,000 s before it is sent, and takes some time from there."""

    def __init__(self, turn: float) -> None:
        super().__init__(lambda request: "x", turn)

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        await anyio.sleep(1000.0)
        return await super().complete(request, key=key, observer=observer, stream=stream)


async def attempt(
    turn: float, grading: float, seconds: float, cut_after: float | None = None, thinking: float = 0.0
) -> Rollout:
    deadline, slow = Deadline(seconds), Slow(thinking, grading)
    result: list[Rollout] = []
    async with opened(Queued(turn)) as dispatcher:
        prompt = PromptAssembler(ExperienceLibrary.empty())
        task = Task("t", "q")
        scope = AttemptScope(
            Key("attempt", task="t", index=0),
            task,
            prompt.prior,
            prompt.messages(task),
            dispatcher,
            deadline=deadline,
        )

        async def one() -> None:
            result.append(await run_attempt(scope, slow, slow))

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            if cut_after is not None:
                await anyio.sleep(cut_after)
                deadline.cut()
    return result[0]


def test_grading_is_no_time_of_the_task() -> None:
    rollout = VirtualClock().run(attempt, 1.0, 9_000.0, 2_500.0)
    assert rollout.reward == Reward(1.0)


@pytest.mark.parametrize(
    ("turn", "thinking", "ends"),
    [
        (1_000.0, 0.0, 3_500.0),  # half of the second turn
        (1.0, 1_000.0, 3_500.0),  # what the agent does itself counts as well
    ],
)
def test_later_turns_are_bounded_from_the_first_launch(turn: float, thinking: float, ends: float) -> None:
    """The clock stands in the queue, before the second turn too."""
    clock = VirtualClock()
    rollout = clock.run(attempt, turn, 0.0, 1_500.0, None, thinking)
    assert clock.now == ends
    assert rollout.fault is not None
    assert rollout.fault.error == "TaskTimeoutError"
    assert "limits.task_timeout" in rollout.fault.message


@pytest.mark.parametrize("cut_after", [0.0, 500.0, 3_010.0])
def test_a_cut_ends_waiting_asking_and_grading(cut_after: float) -> None:
    clock = VirtualClock()
    rollout = clock.run(attempt, 1.0, 50.0, 1e6, cut_after)
    assert clock.now == cut_after
    assert rollout.cut_off
    assert rollout.reward is None


def test_a_cut_that_comes_too_late_changes_nothing() -> None:
    rollout = VirtualClock().run(attempt, 1.0, 50.0, 1e6, 4_000.0)
    assert rollout.reward == Reward(1.0)
    assert not rollout.cut_off


# --- stragglers --------------------------------------------------------------------------------------------


def test_a_group_closes_without_its_stragglers(tmp_path: Path) -> None:
    clock = SteadyClock()
    model = ScriptedModel(SCRIPT, slow(0.15), group_limit=1)
    run(tmp_path, model, clock=clock, practice=4, practice__oversample=3, limits__task_timeout=10_000.0)
    recorded = Recorded(tmp_path)
    rollouts = recorded.of("practice")
    assert len(rollouts) == 4 * 6, "one terminal record for each planned attempt"
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts.values():
        groups.setdefault(rollout.task_id, []).append(rollout)
    for group in groups.values():
        assert sum(rollout.reward is not None for rollout in group) >= 3
        assert all(rollout.cut_off for rollout in group if rollout.reward is None)
    cut = [rollout for rollout in rollouts.values() if rollout.cut_off]
    assert cut
    assert all(rollout.ending is Ending.CUT_OFF and rollout.fault is None for rollout in cut)
    assert recorded.faults == {}, "a cut is nobody's fault"
    assert {plan.attempts for plan in recorded.plans.values()} == {6}
    practice_calls = [key for key in model.calls if key.startswith("practice/")]
    assert len(practice_calls) == 24


def test_practice_is_faster_and_evaluation_never_oversampled(tmp_path: Path) -> None:
    def latency(request: ModelRequest) -> float:
        if request.temperature != 0.7:
            return 1.0
        return 900.0 if seeded(request).random() < 0.15 else 1.0

    clocks = SteadyClock(), SteadyClock()
    for clock, extra in zip(clocks, (0, 3), strict=True):
        folder = tmp_path / str(extra)
        folder.mkdir()
        model = ScriptedModel(SCRIPT, latency, group_limit=1)
        run(folder, model, clock=clock, practice=4, practice__oversample=extra, limits__concurrency=64)
        evaluated = [key for key in model.calls if key.startswith(("baseline/", "learned/"))]
        assert len(evaluated) == 2 * 5 * 2
    assert clocks[0].now > 900.0
    assert clocks[1].now < 100.0


def test_one_request_for_a_group_has_no_stragglers(tmp_path: Path) -> None:
    model = ScriptedModel(SCRIPT, 1.0)
    run(tmp_path, model, practice=4, practice__oversample=2)
    assert sorted(owner_text(key) for key in model.calls if key.startswith("practice/")) == [
        f"practice/step=0001/task=t{number}/try=0000" for number in range(4)
    ]
    assert {request.n for request in model.requests if request.temperature == 0.7} == {3}
    assert len(rollouts_of(tmp_path)) == 12


def test_extra_rollouts_stand_in_for_faulted_ones(tmp_path: Path) -> None:
    faults = FaultPlan().when(lambda call: Key.parse(call.key).index in (0, 1), FaultType.INVALID_REQUEST)
    model = ScriptedModel(SCRIPT, 1.0, faults, group_limit=1)
    run(tmp_path, model, practice=4, practice__oversample=2, practice__min_graded=3)
    recorded = Recorded(tmp_path)
    assert len(recorded.of("practice")) == 4 * 5, "no refill was needed"
    assert recorded.signals()[Signal.UNDERGRADED] == 0
    assert recorded.faults["model"] == 4 * 2 + 2 * 2 * 5


@pytest.mark.parametrize("after", [3, 11, 16, 21, 26])
def test_a_closed_group_stays_as_it_was_closed(tmp_path: Path, after: int) -> None:
    """Stopped anywhere, resumed at other speeds: every planned attempt has one record, and closed is closed."""
    overrides: dict[str, Any] = {
        "practice": 4,
        "practice__oversample": 2,
        "practice__batch_size": 2,
        "limits__task_timeout": 1e5,
    }
    config = make_config(tmp_path, **overrides)
    stop, seen = tfgrpo.StopSwitch(), 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, EffectFinished)
        if seen >= after:
            stop.stop()

    async def begin() -> None:
        model = ScriptedModel(SCRIPT, slow(0.3, 25.0), group_limit=1)
        await tfgrpo.practice(
            config, models=models(model), run_dir=tmp_path / "run", hooks=[interrupt], stop=stop
        )

    with pytest.raises(RunStoppedError):
        SteadyClock().run(begin)
    before = Recorded(tmp_path)
    go_on(tmp_path, ScriptedModel(SCRIPT, slow(0.1, 3.0), group_limit=1))
    resumed = Recorded(tmp_path)
    rollouts = resumed.of("practice")
    assert all(rollouts[key] == rollout for key, rollout in before.of("practice").items())
    assert len(rollouts) == 4 * 5
    assert all(resumed.groups[key] == group for key, group in before.groups.items())
    for record in resumed.groups.values():
        own = [r for r in rollouts.values() if r.task_id == record.task_id]
        assert record.rewards == tuple(None if r.reward is None else r.reward.value for r in own)
    silent = ScriptedModel(SCRIPT)
    go_on(tmp_path, silent)
    assert Recorded(tmp_path).library.digest == resumed.library.digest
    assert silent.calls.total() == 0


def test_a_group_that_had_enough_when_the_engine_died_asks_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies after the usable records of a group and before those of its stragglers."""
    config = make_config(tmp_path, practice=1, practice__oversample=2)
    write = Journal.record

    async def dying(journal: Journal, kind: str, key: Key, value: Any, **more: Any) -> None:
        if isinstance(value, Rollout) and value.cut_off:
            raise JournalError("the engine dies here")
        await write(journal, kind, key, value, **more)

    def latency(request: ModelRequest) -> float:
        return 1.0 if request.temperature != 0.7 or len(first.calls) % 5 < 3 else 60.0

    first = ScriptedModel(SCRIPT, latency, group_limit=1)

    async def begin() -> None:
        await tfgrpo.practice(config, models=models(first), run_dir=tmp_path / "run")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", dying)
        with pytest.raises(JournalError, match="dies here"):
            SteadyClock().run(begin)
    usable = rollouts_of(tmp_path)
    assert len(usable) == 3
    second = ScriptedModel(SCRIPT, group_limit=1)
    go_on(tmp_path, second)
    assert not [key for key in second.calls if key.startswith("practice/")]
    rollouts = rollouts_of(tmp_path)
    assert sum(rollout.cut_off for rollout in rollouts.values()) == 2
    assert all(rollouts[key] == rollout for key, rollout in usable.items())
