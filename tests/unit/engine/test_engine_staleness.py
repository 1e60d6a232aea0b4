"""Steps that overlap: what they read and what they are applied to is a matter of their numbers, not of timing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.steady import SteadyClock
from tests.support.world import Recorded, make_config, models

import tfgrpo
from tfgrpo.errors import RunStoppedError
from tfgrpo.events import EffectFinished, Event, StepFinished, StepStarted
from tfgrpo.library import ExperienceLibrary
from tfgrpo.testing import ScriptedModel
from tfgrpo.testing.scripts import practice_script, seeded
from tfgrpo.trust import Overtaken, Screened, screened
from tfgrpo.types import ModelRequest, Operation, OperationKind

SCRIPT = practice_script()
STEPS: dict[str, Any] = {"practice": 8, "held_out": 2, "practice__epochs": 2, "evaluation__samples": 1}


def uneven(request: ModelRequest) -> float:
    return seeded(request).uniform(1.0, 60.0)


def run(
    folder: Path,
    model: ScriptedModel,
    staleness: int,
    *,
    clock: SteadyClock | None = None,
    hooks: list[Any] | None = None,
    stop: tfgrpo.StopSwitch | None = None,
    **overrides: Any,
) -> tfgrpo.Run:
    folder.mkdir(exist_ok=True)
    config = make_config(folder, **(STEPS | {"practice__max_staleness": staleness} | overrides))

    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(
            config, models=models(model), run_dir=folder / "run", hooks=hooks or [], stop=stop
        )

    return (clock or SteadyClock()).run(main)


@pytest.mark.parametrize("staleness", [0, 1, 2, 9])
def test_a_step_rolls_out_with_the_library_of_its_number(tmp_path: Path, staleness: int) -> None:
    run(tmp_path, ScriptedModel(SCRIPT, uneven), staleness)
    recorded = Recorded(tmp_path)
    steps = recorded.steps
    digests = [ExperienceLibrary.empty().digest, *(step.digest for step in steps)]
    libraries = [ExperienceLibrary.empty(), *(recorded.after(step) for step in steps)]
    assert len(steps) == 4
    assert len(set(digests)) > 2, "a world in which nothing is learned shows nothing"
    for key, rollout in recorded.of("practice").items():
        assert key.step is not None
        assert rollout.prior.digest == digests[max(0, key.step - 1 - staleness)]
    for before, after, record in zip(libraries, libraries[1:], steps, strict=False):
        assert set(record.report.added) == before.diff(after).added.keys(), "applied to the newest"


def test_steps_start_and_finish_in_order(tmp_path: Path) -> None:
    events: list[tuple[str, int]] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted | StepFinished):
            events.append((type(event).__name__, event.step))

    run(tmp_path, ScriptedModel(SCRIPT, uneven), 1, hooks=[listen])
    for kind in ("StepStarted", "StepFinished"):
        assert [step for name, step in events if name == kind] == [1, 2, 3, 4]
    for step in range(1, 5):
        assert events.index(("StepStarted", step)) < events.index(("StepFinished", step))
    assert events.index(("StepStarted", 2)) < events.index(("StepFinished", 1))
    assert events.index(("StepStarted", 3)) > events.index(("StepFinished", 1))


def test_running_ahead_saves_wall_time(tmp_path: Path) -> None:
    """While a step is compared, proposed and consolidated, the rollouts of the next are under way."""
    walls = []
    for staleness in (0, 1):
        clock = SteadyClock()
        times: list[float] = []

        def listen(event: Event, clock: SteadyClock = clock, times: list[float] = times) -> None:
            if isinstance(event, StepStarted | StepFinished):
                times.append(clock.now)

        folder = tmp_path / str(staleness)
        run(folder, ScriptedModel(SCRIPT, 10.0), staleness, clock=clock, hooks=[listen], practice__epochs=4)
        walls.append(times[-1] - times[0])
    assert walls[1] < 0.7 * walls[0]


@pytest.mark.parametrize("after", [3, 7, 10, 14, 18, 23, 28])
def test_a_run_stopped_between_overlapping_steps_goes_on_to_the_same_end(tmp_path: Path, after: int) -> None:
    reference = ScriptedModel(SCRIPT, uneven)
    run(tmp_path / "whole", reference, 1)
    whole = Recorded(tmp_path / "whole")
    stop, seen = tfgrpo.StopSwitch(), 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, EffectFinished)
        if seen >= after:
            stop.stop()

    first, second = ScriptedModel(SCRIPT, uneven), ScriptedModel(SCRIPT, 1.0)
    with pytest.raises(RunStoppedError):
        run(tmp_path / "cut", first, 1, hooks=[interrupt], stop=stop)

    async def go_on() -> tfgrpo.Run:
        return await tfgrpo.resume(tmp_path / "cut" / "run", models=models(second))

    SteadyClock().run(go_on)
    resumed = Recorded(tmp_path / "cut")
    assert resumed.library.digest == whole.library.digest
    assert resumed.verdict == whole.verdict
    assert first.served.keys() | second.served.keys() == reference.served.keys()


@pytest.mark.parametrize("until", [75.0, 140.0, 210.0, 280.0])
def test_a_run_that_dies_between_overlapping_steps_goes_on_to_the_same_end(
    tmp_path: Path, until: float
) -> None:
    """Nothing is drained: calls in flight are lost, as at a crash."""
    run(tmp_path / "whole", ScriptedModel(SCRIPT, uneven), 1)
    (tmp_path / "dead").mkdir()
    config = make_config(tmp_path / "dead", **(STEPS | {"practice__max_staleness": 1}))

    async def die() -> bool:
        with anyio.move_on_after(until) as scope:
            model = ScriptedModel(SCRIPT, uneven)
            await tfgrpo.practice(config, models=models(model), run_dir=tmp_path / "dead" / "run")
        return scope.cancelled_caught

    async def go_on() -> tfgrpo.Run:
        model = ScriptedModel(SCRIPT, 1.0)
        return await tfgrpo.resume(tmp_path / "dead" / "run", models=models(model))

    assert SteadyClock().run(die)
    SteadyClock().run(go_on)
    assert Recorded(tmp_path / "dead").library.digest == Recorded(tmp_path / "whole").library.digest


def test_the_gate_compares_with_the_newest_library(tmp_path: Path) -> None:
    run(
        tmp_path,
        ScriptedModel(practice_script(base=0.3, gain=0.5), uneven),
        1,
        practice__select="gain",
        practice__candidates=2,
        practice__gate_tasks=3,
        practice__epochs=3,
    )
    recorded = Recorded(tmp_path)
    digests = [ExperienceLibrary.empty().digest, *(step.digest for step in recorded.steps)]
    old = [(key.step or 0, rollout) for key, rollout in recorded.of("gate").items() if key.variant == "old"]
    assert any(step > 2 for step, _ in old)
    for step, rollout in old:
        assert rollout.prior.digest == digests[step - 1]


# --- proposals that others overtook -------------------------------------------------------------------------


def add(text: str, version: int = 0, source: str = "s") -> Operation:
    return Operation(OperationKind.ADD, text=text, base_version=version, source=source)


def test_proposals_for_what_changed_meanwhile_are_dropped_with_the_reason() -> None:
    texts = ("When it rains, take an umbrella", "When lost, ask a local", "When late, phone ahead")
    old = ExperienceLibrary.empty().apply(add(text, source=str(n)) for n, text in enumerate(texts))[0]
    newest = old.apply(
        (
            Operation(OperationKind.DELETE, target="E1", base_version=1, source="a"),
            Operation(OperationKind.MODIFY, target="E2", text="When lost, look at the map", base_version=1),
            add("When tired, rest under a tree", version=1, source="c"),
        )
    )[0]
    made = [
        Operation(OperationKind.MODIFY, target="E1", text="When it pours, stay in", base_version=1),
        Operation(OperationKind.DELETE, target="E2", base_version=1),
        Operation(OperationKind.MODIFY, target="E3", text="When late, send word first", base_version=1),
        add("When tired, rest under a tree", version=1),
        add("When hungry, look for berries", version=1),
        Operation(OperationKind.KEEP, target="E2", base_version=1),
    ]
    passed = screened([Overtaken()], made, newest)
    valid, dropped = passed.kept, passed.dropped
    assert valid == (made[2], made[4], made[5])
    assert [drop.operation for drop in dropped] == [made[0], made[1], made[3]]
    assert "E1 is not in the library" in dropped[0].reason
    assert "stale" in dropped[1].reason
    assert "duplicates" in dropped[2].reason
    # What was proposed for the newest version is judged where it is applied, with all others.
    fresh = [Operation(OperationKind.DELETE, target="E99", base_version=newest.version)]
    assert screened([Overtaken()], fresh, newest) == Screened(tuple(fresh))
