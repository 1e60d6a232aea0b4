"""Promises about money and completed calls in runs that nobody kills: what breaks inside must be accounted for too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.errors import HookError, LibraryError, RunStoppedError, UnmeasuredError
from tfgrpo.events import EffectFinished, Event
from tfgrpo.journal import JournalReader
from tfgrpo.testing import FaultPlan, FaultType, LoopbackServer, PlannedFault, ScriptedModel, VirtualClock
from tfgrpo.testing.loopback import read_log
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import EffectKind, EffectStatus, Ending, ModelReply, ModelRequest, Rollout, Usage

SCRIPT = practice_script()


def practise(config: tfgrpo.Config, model: Any, directory: Path, **more: Any) -> tfgrpo.Run:
    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(config, models=models(model), run_dir=directory, **more)

    return VirtualClock().run(main)


class Slow(ScriptedModel):
    """Every summary but the first of its group takes a minute; the first one cannot be written."""

    sent = 0

    async def complete(self, request: ModelRequest, *, key: str = "", **more: Any) -> ModelReply:
        self.sent += 1
        if "//summary/" in key and not key.endswith("0000"):
            await anyio.sleep(60.0)
        return await super().complete(request, key=key, **more)


def test_without_a_crash_no_call_is_left_open(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__summaries="always")
    plan = FaultPlan().when(
        lambda call: "//summary/" in call.key and call.key.endswith("0000"), FaultType.CONTEXT_LENGTH
    )
    practise(config, Slow(SCRIPT, faults=plan), tmp_path / "run")
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        left = [call.key for call in reader.calls() if call.state is EffectStatus.OPEN]
    assert left == []


def test_what_was_cut_off_counts_against_the_budget(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__summaries="always")
    plan = FaultPlan().when(
        lambda call: "//summary/" in call.key and call.key.endswith("0000"), FaultType.CONTEXT_LENGTH
    )
    totals: list[Usage] = []

    def listen(event: Event) -> None:
        if isinstance(event, EffectFinished):
            totals.append(event.total)

    model = Slow(SCRIPT, faults=plan)
    practise(config, model, tmp_path / "run", hooks=[listen])
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        calls = list(reader.calls())
    perhaps = [call for call in calls if call.maybe_paid or call.state is EffectStatus.COMPLETED]
    assert all(call.usage.tokens > 0 for call in perhaps)
    assert totals[-1].tokens >= sum(call.usage.tokens for call in perhaps)
    assert totals[-1].calls >= model.sent - (len(calls) - len(perhaps)) > 20


def test_single_requests_stay_single_after_a_resume(tmp_path: Path) -> None:
    """An endpoint that once answered too few choices gets single requests; those completed must not be lost."""
    stop, finished, log = tfgrpo.StopSwitch(), 0, tmp_path / "served.jsonl"
    before = 0
    kept: set[str] = set()

    def listen(event: Event) -> None:
        nonlocal finished
        if isinstance(event, EffectFinished) and event.key.startswith("practice/") and event.fault is None:
            finished += 1
            if finished == 4:
                stop.stop()

    async def main() -> None:
        nonlocal before
        plan = FaultPlan().when(
            lambda call: call.request.n == 3 and call.key.startswith("practice/step=0001/"),
            FaultType.WRONG_COUNT,
        )
        async with LoopbackServer(SCRIPT, faults=plan, log=log) as server:
            config = make_config(
                tmp_path, model__base_url=server.base_url, limits__concurrency=1, evaluation__samples=1
            )
            with pytest.raises(RunStoppedError):
                await tfgrpo.practice(config, run_dir=tmp_path / "run", hooks=[listen], stop=stop)
            before = len(read_log(log))
            kept.update(completed(tmp_path / "run"))
            server._faults = FaultPlan()
            await tfgrpo.resume(tmp_path / "run")

    VirtualClock(grace=0.02).run(main)
    served = [entry for entry in read_log(log) if entry.key.startswith("practice/")]
    assert {entry.n for entry in served} == {1, 3}
    assert len([key for key in kept if key.startswith("practice/")]) >= 4
    later = read_log(log)[before:]
    assert {entry.n for entry in later} == {1}, "asked as a group again"
    asked_again = kept & {entry.key for entry in later}
    assert not asked_again, "completed, paid, and asked for again"
    assert max(Counter(completed(tmp_path / "run")).values()) == 1


def completed(directory: Path) -> list[str]:
    """The keys of the completed effects of a run."""
    with JournalReader(directory / "journal.db") as reader:
        return [call.key.text for call in reader.calls() if call.state is EffectStatus.COMPLETED]


def test_a_hook_that_fails_is_not_a_fault_of_a_rollout(tmp_path: Path) -> None:
    def broken(event: Event) -> None:
        if isinstance(event, EffectFinished):
            raise ZeroDivisionError("a bug of the display")

    config = make_config(tmp_path)
    with pytest.raises(HookError, match="ZeroDivisionError on EffectFinished: a bug of the display"):
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


class Impatient:
    """Waits a moment for its answer; the first attempt of each group goes without."""

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        with anyio.move_on_after(1.0 if scope.index == 0 else None):
            return (await scope.ask(ModelRequest(scope.messages))).content
        return ""


def test_who_leaves_a_shared_request_does_not_spoil_its_second_try(tmp_path: Path) -> None:
    """The others' request goes on, breaks, and is tried again, when the record of the first is long due."""
    plan = FaultPlan().when(lambda call: call.attempt == 1 and call.request.n > 1, FaultType.SERVER_ERROR)
    model = ScriptedModel(SCRIPT, latency=10.0, faults=plan)
    practise(make_config(tmp_path), model, tmp_path / "run", agent=Impatient())
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        rollouts = reader.records("rollout", Rollout)
        assert reader.open_intents() == 0
    assert any(request.n > 1 for request in model.requests)
    for key, rollout in rollouts.items():
        assert rollout.fault is None
        assert (rollout.trajectory.answer == "") == (key.index == 0)


class OwnTimeout(ScriptedModel):
    """A stranger's model that bounds its calls by itself: what it raises is no error of ours."""

    async def complete(self, request: ModelRequest, **more: Any) -> ModelReply:
        if request.n > 1:
            raise TimeoutError
        return await super().complete(request, **more)


def test_a_timeout_of_a_strangers_model_is_a_fault_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(UnmeasuredError, match=r"ForeignModelError \(model\): The model raised TimeoutError"):
        practise(make_config(tmp_path), OwnTimeout(SCRIPT), tmp_path / "run")
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        assert {rollout.ending for rollout in reader.records("rollout", Rollout).values()} == {Ending.FAULTED}
        assert reader.open_intents() == 0


class Hangs:
    """A tool that never comes back."""

    name = "hangs"

    async def run(self, arguments: Any) -> str:
        await anyio.sleep_forever()
        return ""


class UsesTool:
    async def attempt(self, scope: tfgrpo.Scope) -> str:
        return (
            await scope.call("hangs", {})
            if scope.index == 0
            else (await scope.ask(ModelRequest(scope.messages))).content
        )


def test_a_tool_that_is_given_up_is_settled_as_perhaps_done(tmp_path: Path) -> None:
    practise(
        make_config(tmp_path, limits__task_timeout=60.0),
        ScriptedModel(SCRIPT),
        tmp_path / "run",
        agent=UsesTool(),
        tools=[Hangs()],
    )
    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        uses = [call for call in reader.calls() if call.kind is EffectKind.TOOL]
    assert uses
    assert {(use.state, use.maybe_paid) for use in uses} == {(EffectStatus.FAILED, True)}
    assert {use.fault.error for use in uses if use.fault} == {"TaskTimeoutError"}
