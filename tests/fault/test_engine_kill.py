"""SIGKILL at random moments, then resume: no completed call is sent again, and the library is the same.

What a case draws is decided by its number; where exactly the kill falls is also up to the machine, so that
repetitions explore. The server survives and its log says what was paid.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tests.fault.conftest import World
from tests.support.engines import Ledger
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.journal import Journal
from tfgrpo.testing import ScriptedModel
from tfgrpo.testing.scripts import practice_script

#: Cases, and into how many tests they are cut.
CASES = [
    pytest.param(0, 50, id="push"),
    *(
        pytest.param(start, start + 100, id=f"nightly-{start}", marks=pytest.mark.nightly)
        for start in range(1000, 2000, 100)
    ),
]


def kill_at(world: World, directory: Path, draw: random.Random) -> bool:
    """Start or resume, and kill: by the clock, or just after the server was paid for the n-th new call."""
    before = world.server.position()
    engine = world.stable.start(*world.practice(directory))
    if draw.random() < 0.4:
        time.sleep(draw.uniform(0.0, world.seconds))
    else:
        calls, patience = draw.randint(1, len(world.paid)), time.monotonic() + 2 * world.seconds
        while len(world.server.served(before)) < calls and time.monotonic() < patience:
            time.sleep(0.0005)
        time.sleep(draw.choice([0.0, draw.uniform(0.0, 0.02)]))
    engine.kill()
    return engine.wait().code == -9


@pytest.mark.parametrize(("first", "last"), CASES)
def test_killed_at_any_moment_nothing_is_lost_or_paid_twice(
    world: World, quick_path: Path, first: int, last: int
) -> None:
    killed = extra = unborn = 0
    for case in range(first, last):
        draw = random.Random(f"kill {case}")
        ledger = Ledger(quick_path / f"run-{case}", world.server)
        for _ in range(draw.choice([1, 1, 1, 1, 3])):
            killed += kill_at(world, ledger.directory, draw)
            ledger.check()
            unborn += not ledger.begun
        extra += world.finish(ledger)
    cases = last - first
    assert killed > cases / 2, "too few kills met a living engine"
    assert extra > 0, "no kill met a call in flight: the moments are drawn badly"
    assert unborn < killed / 2, "most kills met an engine that had not begun"


class Killed(BaseException):
    """The end of an engine, as far as Python can tell it."""


async def test_killed_before_its_first_record_a_run_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal stands under its name from the moment that it holds what a resume needs."""

    async def killed(*_: object, **__: object) -> None:
        raise Killed

    config, model = make_config(tmp_path), ScriptedModel(practice_script())
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", killed)
        with pytest.raises(Killed):
            await tfgrpo.practice(config, models=models(model), run_dir=tmp_path / "run")
    assert (tmp_path / "run" / "journal.db").exists()
    with pytest.raises(tfgrpo.ConfigError, match="is the journal of a run"):
        async with tfgrpo.Engine(model, store=tmp_path / "run" / "journal.db"):
            pass
    run = await tfgrpo.resume(tmp_path / "run", models=models(model))
    assert run.comparison is not None
