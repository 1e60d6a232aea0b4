"""Who goes first where slots are few: the critical path, then what finishes something, then what starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.steady import SteadyClock
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.dispatch.priority import Priority
from tfgrpo.rollout import Ask, Attempt
from tfgrpo.testing import FaultPlan, FaultType, ScriptedModel
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import Message, ModelRequest, Trajectory

SCRIPT = practice_script()


def order(folder: Path, model: ScriptedModel, **overrides: Any) -> list[str]:
    """The keys of the practice phase in the order in which they were sent, through few slots."""
    config = make_config(folder, practice=8, practice__batch_size=8, limits__concurrency=2, **overrides)

    async def main() -> None:
        await tfgrpo.practice(config, models=models(model), run_dir=folder / "run")

    SteadyClock().run(main)
    return [key for key in model.calls if key.startswith(("practice/", "distill/", "consolidate/", "gate/"))]


def test_the_order_is_what_it_says() -> None:
    assert sorted(Priority) == [Priority.CRITICAL, Priority.FINISH, Priority.START]


def test_comparison_goes_before_new_rollouts(tmp_path: Path) -> None:
    keys = order(tmp_path, ScriptedModel(SCRIPT, 1.0, group_limit=1))
    for place, key in enumerate(keys):
        if key.endswith("/advantage"):
            task = key.split("/")[2]
            last = max(n for n, k in enumerate(keys) if k.startswith(f"practice/0001/{task}/"))
            between = [k for k in keys[last + 1 : place] if k.startswith("practice/")]
            assert len(between) <= 3, f"{key} waited for {between}"
    first = next(place for place, key in enumerate(keys) if key.startswith("distill/"))
    assert sum(key.startswith("practice/") for key in keys[first:]) > 10


def test_refills_go_before_new_groups(tmp_path: Path) -> None:
    faults = FaultPlan().when(
        lambda call: call.key.startswith("practice/0001/t") and call.key.endswith("/0000x1"),
        FaultType.INVALID_REQUEST,
    )
    model = ScriptedModel(SCRIPT, 1.0, faults, group_limit=1)
    keys = order(tmp_path, model, practice__min_graded=3, practice__shuffle=False)
    refill = keys.index("practice/0001/t0/0003x1")
    assert sum(key.startswith("practice/") for key in keys[refill:]) > 10


class TwoTurns:
    """Asks twice."""

    async def attempt(self, messages: tuple[Message, ...], ask: Ask) -> Attempt:
        first = await ask(ModelRequest(messages))
        more = (*messages, Message("assistant", first.content), messages[-1])
        second = await ask(ModelRequest(more))
        return Attempt(Trajectory((*more, Message("assistant", second.content))))


def test_later_turns_go_before_new_rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfgrpo.run.api.build_agent", lambda section: TwoTurns())
    keys = order(tmp_path, ScriptedModel(SCRIPT, 1.0, group_limit=1))
    practice = [key for key in keys if key.startswith("practice/")]
    assert len(practice) == 8 * 3 * 2
    second = [place for place, key in enumerate(practice) if key.endswith("/0002")]
    assert second[0] <= 6
