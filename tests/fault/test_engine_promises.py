"""Promises about money and completed calls in runs that nobody kills: what breaks inside must be accounted for too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.errors import HookError, LibraryError, RunStoppedError
from tfgrpo.events import CallFinished, Event
from tfgrpo.journal import JournalReader
from tfgrpo.testing import FaultPlan, FaultType, LoopbackServer, PlannedFault, ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import EffectStatus, ModelReply, ModelRequest, Rollout, Usage

SCRIPT = practice_script()


def practise(config: tfgrpo.Config, model: Any, directory: Path, **more: Any) -> tfgrpo.Run:
    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(config, models=models(model), run_dir=directory, **more)

    return VirtualClock().run(main)


class Slow(ScriptedModel):
    """Every summary but the first of its group takes a minute; the first one cannot be written."""

    async def complete(self, request: ModelRequest, *, key: str = "", **more: Any) -> ModelReply:
        if "/summary/" in key and not key.endswith("0000"):
            self.served[key] += 1
            await anyio.sleep(60.0)
        return await super().complete(request, key=key, **more)


def test_without_a_crash_no_call_is_left_open(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__summaries="always")
    plan = FaultPlan().when(
        lambda call: "/summary/" in call.key and call.key.endswith("0000"), FaultType.CONTEXT_LENGTH
    )
    practise(config, Slow(SCRIPT, faults=plan), tmp_path / "run")
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        left = [call.key for call in reader.calls() if call.state is EffectStatus.OPEN]
    assert left == []


def test_what_was_cut_off_counts_against_the_budget(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__summaries="always")
    plan = FaultPlan().when(
        lambda call: "/summary/" in call.key and call.key.endswith("0000"), FaultType.CONTEXT_LENGTH
    )
    totals: list[Usage] = []

    def listen(event: Event) -> None:
        if isinstance(event, CallFinished):
            totals.append(event.total)

    model = Slow(SCRIPT, faults=plan)
    practise(config, model, tmp_path / "run", hooks=[listen])
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        perhaps = sum(call.maybe_paid or call.state is EffectStatus.COMPLETED for call in reader.calls())
    assert totals[-1].calls >= perhaps


def test_single_requests_stay_single_after_a_resume(tmp_path: Path) -> None:
    """An endpoint that once answered too few choices gets single requests; those completed must not be lost."""
    stop, finished, keys = tfgrpo.StopSwitch(), 0, Counter[str]()

    def listen(event: Event) -> None:
        nonlocal finished
        if isinstance(event, CallFinished) and event.key.startswith("practice/"):
            finished += 1
            if finished == 4:
                stop.stop()

    async def main() -> None:
        plan = FaultPlan().when(
            lambda call: call.request.n == 3 and call.key.startswith("practice/0001"), FaultType.WRONG_COUNT
        )
        async with LoopbackServer(SCRIPT, faults=plan) as server:
            config = make_config(
                tmp_path, model__base_url=server.base_url, limits__concurrency=1, evaluation__samples=1
            )
            with pytest.raises(RunStoppedError):
                await tfgrpo.practice(config, run_dir=tmp_path / "run", hooks=[listen], stop=stop)
            server._faults = FaultPlan()
            await tfgrpo.resume(tmp_path / "run")
            keys.update(server.counts.by_key)

    VirtualClock(grace=0.02).run(main)
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        singles = {
            call.key
            for call in reader.calls()
            if call.state is EffectStatus.COMPLETED
            and call.key.startswith("practice/")
            and call.key.endswith("x1")
        }
        groups = {
            call.key
            for call in reader.calls()
            if call.state is EffectStatus.COMPLETED and call.key.endswith("x3")
        }
    assert len(singles) >= 4
    asked_again = {key for key in singles if f"{key.rpartition('/')[0]}/0000x3" in groups}
    assert not asked_again, "completed, paid, and asked for again as part of a group"


def test_a_hook_that_fails_is_not_a_fault_of_a_rollout(tmp_path: Path) -> None:
    def broken(event: Event) -> None:
        if isinstance(event, CallFinished):
            raise ZeroDivisionError("a bug of the display")

    config = make_config(tmp_path)
    with pytest.raises(HookError, match="ZeroDivisionError on CallFinished: a bug of the display"):
        practise(config, ScriptedModel(SCRIPT), tmp_path / "run", hooks=[broken])
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        faults = [rollout.fault for rollout in reader.records("rollout", Rollout).values() if rollout.fault]
    assert faults == []


def test_a_retry_after_of_ages_ends_in_a_stop_that_can_be_resumed(tmp_path: Path) -> None:
    fault = PlannedFault(FaultType.OVERLOADED, retry_after=10_000.0)
    plan = FaultPlan().when(lambda call: call.nth == 5, fault)
    first = ScriptedModel(SCRIPT, faults=plan)
    with pytest.raises(RunStoppedError):
        practise(make_config(tmp_path), first, tmp_path / "run")
    second = ScriptedModel(SCRIPT)

    async def main() -> tfgrpo.Run:
        return await tfgrpo.resume(tmp_path / "run", models=models(second))

    assert VirtualClock().run(main).comparison is not None
    assert set((first.served + second.served).values()) == {1}


def test_a_library_that_cannot_be_saved_ends_the_run(tmp_path: Path) -> None:
    """The steps after it wait for it: they must not wait for ever."""
    config = make_config(tmp_path, practice__epochs=2)
    run = tmp_path / "run"
    (run / "library" / "v0001.json").mkdir(parents=True)  # a folder in its place
    with pytest.raises(LibraryError, match=r"v0001\.json"):
        practise(config, ScriptedModel(SCRIPT), run)
