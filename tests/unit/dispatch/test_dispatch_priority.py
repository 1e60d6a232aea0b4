"""Who goes first where slots are few: the critical path, then what finishes something, then what starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.steady import SteadyClock
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.dispatch.priority import Priority
from tfgrpo.keys import Key
from tfgrpo.protocols import Scope
from tfgrpo.testing import FaultPlan, FaultType, ScriptedModel
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import ModelRequest

SCRIPT = practice_script()


def order(
    folder: Path, model: ScriptedModel, agent: tfgrpo.Agent | None = None, **overrides: Any
) -> list[Key]:
    """The keys of the practice phase in the order in which they were sent, through few slots."""
    config = make_config(folder, practice=8, practice__batch_size=8, limits__concurrency=2, **overrides)

    async def main() -> None:
        await tfgrpo.practice(config, models=models(model), run_dir=folder / "run", agent=agent)

    SteadyClock().run(main)
    keys = map(Key.parse, model.calls)
    return [key for key in keys if key.phase in ("practice", "distill", "consolidate", "gate")]


def test_the_order_is_what_it_says() -> None:
    assert sorted(Priority) == [Priority.CRITICAL, Priority.FINISH, Priority.START]


def test_comparison_goes_before_new_rollouts(tmp_path: Path) -> None:
    keys = order(tmp_path, ScriptedModel(SCRIPT, 1.0, group_limit=1))
    for place, key in enumerate(keys):
        if key.inside == ("advantage",):
            last = max(n for n, k in enumerate(keys) if (k.phase, k.task) == ("practice", key.task))
            between = [k for k in keys[last + 1 : place] if k.phase == "practice"]
            assert len(between) <= 3, f"{key} waited for {between}"
    first = next(place for place, key in enumerate(keys) if key.phase == "distill")
    assert sum(key.phase == "practice" for key in keys[first:]) > 10


def test_refills_go_before_new_groups(tmp_path: Path) -> None:
    faults = FaultPlan().when(
        lambda call: call.key.startswith("practice/") and Key.parse(call.key).index == 0,
        FaultType.INVALID_REQUEST,
    )
    model = ScriptedModel(SCRIPT, 1.0, faults, group_limit=1)
    keys = order(tmp_path, model, practice__min_graded=3, practice__shuffle=False)
    refill = [key.owner for key in keys].index(Key("practice", 1, task="t0", index=3))
    assert sum(key.phase == "practice" for key in keys[refill:]) > 10


class TwoTurns:
    """Asks twice."""

    async def attempt(self, scope: Scope) -> str:
        first = await scope.ask(ModelRequest(scope.messages))
        more = (*scope.messages, first.message, scope.messages[-1])
        return (await scope.ask(ModelRequest(more))).content


def test_later_turns_go_before_new_rollouts(tmp_path: Path) -> None:
    keys = order(tmp_path, ScriptedModel(SCRIPT, 1.0, group_limit=1), TwoTurns())
    practice = [key for key in keys if key.phase == "practice"]
    assert len(practice) == 8 * 3 * 2
    owners = [key.owner for key in practice]
    second = [place for place, owner in enumerate(owners) if owner in owners[:place]]
    assert second[0] <= 6
