"""Laws of the engine: finishing order never reaches a digest, and no plan of faults leaves a rollout open."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.steady import SteadyClock
from tests.support.streamed import StreamedModel
from tests.support.world import Recorded, make_config, models

import tfgrpo
from tfgrpo.engine.plan import plan
from tfgrpo.errors import RunStoppedError, UnmeasuredError
from tfgrpo.events import EffectFinished, Event
from tfgrpo.run.inputs import method_of
from tfgrpo.testing import FaultPlan, FaultType, ScriptedModel
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import Ending, ModelRequest, Role, Task

SCRIPT = practice_script()
RUNS = settings(
    max_examples=max(12, settings().max_examples // 10),  # whole runs: fewer of them, more at night
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def practise(folder: Path, model: ScriptedModel, **overrides: Any) -> tfgrpo.Run:
    config = make_config(folder, practice=5, held_out=3, **overrides)

    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(config, models=models(model), run_dir=folder / "run")

    return SteadyClock().run(main)


@RUNS
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 64]), st.sampled_from([None, 1, 2]))
def test_the_same_replies_give_the_same_library_in_any_finishing_order(
    shuffle: int, concurrency: int, group_limit: int | None
) -> None:
    def latency(request: ModelRequest) -> float:
        return random.Random(f"{shuffle}{request.seed}").uniform(0.01, 50.0)

    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        practise(Path(one), ScriptedModel(SCRIPT, group_limit=group_limit))
        shuffled = ScriptedModel(SCRIPT, latency, group_limit=group_limit)
        practise(Path(two), shuffled, limits__concurrency=concurrency)
        first, second = Recorded(Path(one)), Recorded(Path(two))
    assert first.library.digest == second.library.digest
    assert first.verdict == second.verdict


#: A prompt long enough to be led, and four steps that may overlap.
LONG: dict[str, Any] = {
    "agent__system": " ".join(f"rule{number}" for number in range(80)),
    "practice__batch_size": 3,
    "practice__epochs": 2,
    "evaluation__samples": 1,
}


@RUNS
@given(
    shuffle=st.integers(0, 2**32),
    concurrency=st.sampled_from([1, 4, 64]),
    group_limit=st.sampled_from([None, 1, 2]),
    staleness=st.sampled_from([0, 1, 2]),
    leaders=st.sampled_from(["off", "auto", "on"]),
    different=st.sampled_from([1, 2]),
)
def test_leaders_and_latencies_change_no_result_at_any_staleness(
    shuffle: int, concurrency: int, group_limit: int | None, staleness: int, leaders: str, different: int
) -> None:
    def latency(kind: str) -> Callable[[str], float]:
        return lambda key: random.Random(f"{shuffle}{kind}{key}").choice([0.1, 3.0, 70.0])

    def run(folder: Path, model: Any, **overrides: Any) -> tfgrpo.Run:
        config = make_config(
            folder, practice=5, held_out=2, practice__max_staleness=staleness, **(LONG | overrides)
        )

        async def main() -> tfgrpo.Run:
            return await tfgrpo.practice(config, models=dict.fromkeys(Role, model), run_dir=folder / "run")

        return SteadyClock().run(main)

    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        calm, wild = (
            ScriptedModel(SCRIPT, group_limit=group_limit),
            StreamedModel(SCRIPT, latency("first"), latency("rest"), group_limit=group_limit),
        )
        run(Path(one), calm, model__prefix_cache="off")
        run(
            Path(two),
            wild,
            model__prefix_cache=leaders,
            model__prefix_leaders=different,
            limits__concurrency=concurrency,
        )
        first, second = Recorded(Path(one)), Recorded(Path(two))
    assert first.library.digest == second.library.digest
    assert first.verdict == second.verdict
    assert set(calm.calls) == {sent.key for sent in wild.sent}


@RUNS
@given(
    after=st.integers(1, 45),
    shuffle=st.integers(0, 2**32),
    staleness=st.sampled_from([1, 2]),
    group_limit=st.sampled_from([None, 1]),
)
def test_overlapping_steps_stopped_anywhere_go_on_to_the_same_library(
    after: int, shuffle: int, staleness: int, group_limit: int | None
) -> None:
    def latency(request: ModelRequest) -> float:
        return random.Random(f"{shuffle}{request.seed}").uniform(
            0.01, 25.0
        )  # what is in flight has 30 s to finish

    stop, seen = tfgrpo.StopSwitch(), 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, EffectFinished)
        if seen >= after:
            stop.stop()

    overrides = LONG | {"practice__max_staleness": staleness}
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        reference = ScriptedModel(SCRIPT, latency, group_limit=group_limit)
        practise(Path(one), reference, **overrides)
        config = make_config(Path(two), practice=5, held_out=3, **overrides)
        first, second = (ScriptedModel(SCRIPT, latency, group_limit=group_limit) for _ in range(2))

        async def begin() -> None:
            with contextlib.suppress(RunStoppedError):  # a run may end before its stop
                await tfgrpo.practice(
                    config, models=models(first), run_dir=Path(two) / "run", hooks=[interrupt], stop=stop
                )

        async def go_on() -> tfgrpo.Run:
            return await tfgrpo.resume(Path(two) / "run", models=models(second))

        SteadyClock().run(begin)
        SteadyClock().run(go_on)
        whole, resumed = Recorded(Path(one)), Recorded(Path(two))
    assert resumed.library.digest == whole.library.digest
    assert resumed.verdict == whole.verdict
    assert first.served + second.served == reference.served


@RUNS
@given(
    seed=st.integers(0, 2**32),
    rate=st.floats(0.0, 0.9),
    types=st.sets(st.sampled_from(sorted(set(FaultType) - {FaultType.WRONG_COUNT})), min_size=1),
)
def test_any_fault_plan_ends_and_every_planned_rollout_has_one_record(
    seed: int, rate: float, types: set[FaultType]
) -> None:
    faults = FaultPlan.random(seed, rate, sorted(types), seconds=30.0)
    with TemporaryDirectory() as folder:
        path = Path(folder)
        model = ScriptedModel(SCRIPT, 1.0, faults)
        measured = True
        try:
            practise(path, model, limits__attempts=3)
        except RunStoppedError:
            # A key, a quota, an unknown model or a dead endpoint stops the run; healed, it goes on.
            async def main() -> tfgrpo.Run:
                return await tfgrpo.resume(path / "run", models=models(ScriptedModel(SCRIPT)))

            SteadyClock().run(main)
        except UnmeasuredError:
            measured = False
        recorded = Recorded(path)
    assert recorded.open_intents == 0
    phases = [("baseline", 3 * 2, 3), ("practice", 5 * 3, 5), ("learned", 3 * 2, 3)]
    if not measured:
        ungraded = "learned" if recorded.of("learned") else "baseline"
        assert all(rollout.reward is None for rollout in recorded.of(ungraded).values())
        phases = [phase for phase in phases if recorded.of(phase[0])]
    for phase, planned, tasks in phases:
        keys = recorded.of(phase)
        assert len(keys) >= planned
        assert len({key.group for key in keys}) == tasks
    for rollout in recorded.rollouts.values():
        assert (rollout.ending is Ending.FAULTED) == (rollout.fault is not None)
        assert rollout.fault is None or rollout.reward is None


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 4), st.integers(0, 99))
def test_a_plan_visits_every_task_once_an_epoch(tasks: int, batch: int, epochs: int, seed: int) -> None:
    with TemporaryDirectory() as folder:
        config = make_config(
            Path(folder), practice__epochs=epochs, practice__batch_size=batch, run__seed=seed
        )
    all_tasks = [Task(str(number), "x") for number in range(tasks)]
    method = method_of(config)
    batches = plan(method, all_tasks)
    assert [b.step for b in batches] == list(range(1, len(batches) + 1))
    for epoch in range(1, epochs + 1):
        seen = [task.id for b in batches if b.epoch == epoch for task in b.tasks]
        assert sorted(seen) == sorted(task.id for task in all_tasks)
    assert plan(method, all_tasks) == batches
    assert all(msgspec.json.decode(msgspec.json.encode(b), type=type(b)) == b for b in batches)
