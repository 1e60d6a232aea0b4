"""What bounds a rollout: its deadline, and a group that closes without its stragglers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from tests.support.steady import SteadyClock
from tests.support.world import make_config, models
from tfgrpo.engine.first_turn import FirstTurn

import tfgrpo
from tfgrpo.config import Endpoint
from tfgrpo.dispatch.prefix import Convoy, PrefixCache
from tfgrpo.dispatch.priority import Priority
from tfgrpo.engine.records import GroupPlan, GroupRecord
from tfgrpo.errors import CutOffError, JournalError, RunStoppedError, TaskTimeoutError
from tfgrpo.events import CallFinished, Event
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.rollout import Ask, Attempt, Deadline, is_cut_off, run_rollout
from tfgrpo.testing import FaultPlan, FaultType, PlannedFault, ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script, seeded
from tfgrpo.types import (
    Choice,
    Ending,
    FaultKind,
    Message,
    ModelRequest,
    PriorRef,
    Reward,
    Role,
    Rollout,
    Task,
    Trajectory,
)

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


def rollouts_of(folder: Path, phase: str = "practice") -> dict[str, Rollout]:
    with JournalReader(folder / "run" / "journal.db") as reader:
        return reader.records("rollout", Rollout, prefix=f"{phase}/")


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


def test_a_shared_request_that_ran_out_of_time_is_not_sent_again() -> None:
    """Rollouts of a chunk have one clock, but even one that had time left must not pay a second time."""
    sent: list[str] = []

    class Hanging:
        def group_limit(self, role: Role) -> int | None:
            return None

        async def complete(self, key: str, *_: Any, on_launch: Callable[[], None], **__: Any) -> None:
            sent.append(key)
            on_launch()
            await anyio.sleep_forever()

    assembler = PromptAssembler(ExperienceLibrary.empty())
    cache = PrefixCache(Endpoint(base_url="http://127.0.0.1:9/v1", name="m"))
    convoy = Convoy(cache, assembler, 0)
    context: Any = SimpleNamespace(
        calls=Hanging(), prefix_cache=cache, group_convoy=lambda assembler, task: convoy
    )
    task, ended = Task("t", "q"), []

    async def main() -> None:
        turn = FirstTurn(
            context, "k", task, range(2), assembler, convoy, priority=Priority.START, single=False
        )

        async def one(index: int, seconds: float) -> None:
            with pytest.raises(TaskTimeoutError), Deadline(seconds) as deadline:
                await turn.choice(index, ModelRequest(()), 0, deadline)
            ended.append((index, anyio.current_time()))

        async with anyio.create_task_group() as group:
            group.start_soon(one, 0, 10.0)
            group.start_soon(one, 1, 1000.0)

    SteadyClock().run(main)
    assert ended == [(0, 10.0), (1, 10.0)]
    assert sent == ["k/0000x2"]


def test_waiting_for_a_slot_costs_no_time_of_the_task(tmp_path: Path) -> None:
    clock = SteadyClock()
    model = ScriptedModel(SCRIPT, 60.0, group_limit=1)
    run(tmp_path, model, clock=clock, practice=4, limits__concurrency=1, limits__task_timeout=100.0)
    assert clock.now > 12 * 60.0
    assert all(rollout.fault is None for rollout in rollouts_of(tmp_path).values())


def test_retries_count_from_the_first_launch(tmp_path: Path) -> None:
    faults = FaultPlan().when(lambda call: call.key.startswith("practice/0001/t0/"), FaultType.SERVER_ERROR)
    model = ScriptedModel(SCRIPT, 45.0, faults, group_limit=1)
    run(tmp_path, model, practice=2, practice__refills=0, limits__task_timeout=100.0, limits__attempts=50)
    errors = Counter(r.fault.error for r in rollouts_of(tmp_path).values() if r.fault is not None)
    assert errors == {"TaskTimeoutError": 3}
    assert all(2 <= n <= 3 for key, n in model.calls.items() if key.startswith("practice/0001/t0/"))


def test_a_provider_that_paces_us_makes_no_faults(tmp_path: Path) -> None:
    """429s for longer than the task's timeout: the clock stands between a refusal and the next launch."""
    limited = PlannedFault(FaultType.RATE_LIMITED, retry_after=150.0)
    faults = FaultPlan().when(
        lambda call: call.key.startswith("practice/0001/t0/") and call.attempt <= 3, limited
    )
    clock = SteadyClock()
    model = ScriptedModel(SCRIPT, 5.0, faults)
    run(tmp_path, model, clock=clock, practice=2, limits__task_timeout=100.0)
    assert clock.now > 450.0
    assert all(rollout.fault is None for rollout in rollouts_of(tmp_path).values())


def test_a_clock_that_stood_goes_on_where_it_was() -> None:
    async def work(deadline: Deadline) -> None:
        with deadline:
            deadline.start()
            await anyio.sleep(60.0)
            deadline.pause()
            await anyio.sleep(500.0)
            deadline.start()
            deadline.start()
            await anyio.sleep(500.0)

    async def main() -> float:
        with pytest.raises(TaskTimeoutError):
            await work(Deadline(100.0))
        return anyio.current_time()

    assert VirtualClock().run(main) == 600.0


class Slow:
    """An agent or a verifier that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def attempt(self, messages: tuple[Message, ...], ask: Ask) -> Attempt:
        for _ in range(3):
            await ask(ModelRequest(messages))
        return Attempt(Trajectory((*messages, Message("assistant", "x"))))

    async def verify(self, task: Task, trajectory: Trajectory) -> Reward:
        await anyio.sleep(self.seconds)
        return Reward(1.0)

    async def aclose(self) -> None:
        pass


async def attempt(turn: float, grading: float, seconds: float, cut_after: float | None = None) -> Rollout:
    deadline = Deadline(seconds)

    async def ask(request: ModelRequest) -> Choice:
        await anyio.sleep(1000.0)  # waits for its slot
        deadline.start()
        await anyio.sleep(turn)
        return Choice("x")

    result: list[Rollout] = []

    async def one() -> None:
        slow = Slow(grading)
        result.append(await run_rollout(Task("t", "q"), 0, PriorRef(0, ""), (), slow, ask, slow, deadline))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        if cut_after is not None:
            await anyio.sleep(cut_after)
            deadline.cut()
    return result[0]


def test_grading_is_no_time_of_the_task() -> None:
    rollout = VirtualClock().run(attempt, 1.0, 9_000.0, 2_500.0)
    assert rollout.reward == Reward(1.0)


def test_later_turns_are_bounded_from_the_first_launch() -> None:
    clock = VirtualClock()
    rollout = clock.run(attempt, 1.0, 0.0, 1_500.0)
    assert clock.now == 2_500.0
    assert rollout.fault is not None
    assert rollout.fault.error == "TaskTimeoutError"
    assert "limits.task_timeout" in rollout.fault.message


@pytest.mark.parametrize("cut_after", [0.0, 500.0, 3_010.0])
def test_a_cut_ends_waiting_asking_and_grading(cut_after: float) -> None:
    clock = VirtualClock()
    rollout = clock.run(attempt, 1.0, 50.0, 1e6, cut_after)
    assert clock.now == cut_after
    assert is_cut_off(rollout)
    assert rollout.reward is None


def test_a_cut_that_comes_too_late_changes_nothing() -> None:
    rollout = VirtualClock().run(attempt, 1.0, 50.0, 1e6, 4_000.0)
    assert rollout.reward == Reward(1.0)
    assert not is_cut_off(rollout)


# --- stragglers --------------------------------------------------------------------------------------------


def test_a_group_closes_without_its_stragglers(tmp_path: Path) -> None:
    clock = SteadyClock()
    model = ScriptedModel(SCRIPT, slow(0.15), group_limit=1)
    run_ = run(
        tmp_path, model, clock=clock, practice=4, practice__oversample=3, limits__task_timeout=10_000.0
    )
    rollouts = rollouts_of(tmp_path)
    assert len(rollouts) == 4 * 6, "one terminal record for each planned attempt"
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts.values():
        groups.setdefault(rollout.task_id, []).append(rollout)
    for group in groups.values():
        assert sum(rollout.reward is not None for rollout in group) >= 3
        assert all(is_cut_off(rollout) for rollout in group if rollout.reward is None)
    cut = [rollout for rollout in rollouts.values() if is_cut_off(rollout)]
    assert cut
    assert {r.fault.error for r in cut if r.fault is not None} == {CutOffError.__name__}
    assert run_.result.faults == {}, "a cut is nobody's fault"
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        assert {plan.attempts for plan in reader.records("plan", GroupPlan).values()} == {6}
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
    assert {key for key in model.calls if key.startswith("practice/")} == {
        f"practice/0001/t{number}/0000x3" for number in range(4)
    }
    assert len(rollouts_of(tmp_path)) == 12


def test_extra_rollouts_stand_in_for_faulted_ones(tmp_path: Path) -> None:
    faults = FaultPlan().when(
        lambda call: call.key.endswith(("/0000x1", "/0001x1")), FaultType.INVALID_REQUEST
    )
    model = ScriptedModel(SCRIPT, 1.0, faults, group_limit=1)
    run_ = run(tmp_path, model, practice=4, practice__oversample=2, practice__min_graded=3)
    rollouts = rollouts_of(tmp_path)
    assert len(rollouts) == 4 * 5, "no refill was needed"
    assert run_.result.groups.undergraded == 0
    assert run_.result.faults["model"] == 4 * 2 + 2 * 2 * 5


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
        seen += isinstance(event, CallFinished)
        if seen >= after:
            stop.stop()

    async def begin() -> None:
        model = ScriptedModel(SCRIPT, slow(0.3, 25.0), group_limit=1)
        await tfgrpo.practice(
            config, models=models(model), run_dir=tmp_path / "run", hooks=[interrupt], stop=stop
        )

    with pytest.raises(RunStoppedError):
        SteadyClock().run(begin)
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        before = reader.records("group", GroupRecord)
    recorded = rollouts_of(tmp_path)
    resumed = go_on(tmp_path, ScriptedModel(SCRIPT, slow(0.1, 3.0), group_limit=1))
    after_ = rollouts_of(tmp_path)
    assert recorded.items() <= after_.items()
    assert len(after_) == 4 * 5
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        groups = reader.records("group", GroupRecord)
    assert before.items() <= groups.items()
    for record in groups.values():
        own = [r for r in after_.values() if r.task_id == record.task_id]
        assert record.rewards == tuple(None if r.reward is None else r.reward.value for r in own)
    silent = ScriptedModel(SCRIPT)
    assert go_on(tmp_path, silent).library.digest == resumed.library.digest
    assert silent.calls.total() == 0


def test_a_group_that_had_enough_when_the_engine_died_asks_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies after the usable records of a group and before those of its stragglers."""
    config = make_config(tmp_path, practice=1, practice__oversample=2)
    write = Journal.record

    async def dying(journal: Journal, kind: str, key: str, value: Any) -> None:
        if isinstance(value, Rollout) and is_cut_off(value):
            raise JournalError("the engine dies here")
        await write(journal, kind, key, value)

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
    assert sum(is_cut_off(rollout) for rollout in rollouts.values()) == 2
    assert usable.items() <= rollouts.items()
