"""The pushes of a stranger: an agent, a hook, a verifier, a model and a store that are not ours."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.guests.agents import BreaksAfterTwoTurns, Different, ThreeTurns
from tests.support.world import make_config

import tfgrpo
from tfgrpo.engine.records import GroupRecord
from tfgrpo.errors import UnmeasuredError
from tfgrpo.events import Event, RolloutFinished, Warned
from tfgrpo.testing import ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import Choice, PriorRecord

SCRIPT = practice_script()


def models(model: tfgrpo.Model) -> dict[tfgrpo.Role, tfgrpo.Model]:
    return dict.fromkeys(tfgrpo.Role, model)


async def rollouts_of(store: tfgrpo.Store, under: str = "") -> list[tfgrpo.Rollout]:
    return [rollout async for _, rollout in store.records("rollout", tfgrpo.Rollout, under)]


def run(main: Callable[[], Any]) -> Any:
    return VirtualClock().run(main)


@pytest.mark.parametrize("group_limit", [None, 1, 2])
def test_each_first_answer_belongs_to_its_own_request(tmp_path: Path, group_limit: int | None) -> None:
    """An answer that echoes its request shows whose it is."""

    def echo(request: tfgrpo.ModelRequest) -> Any:
        own = request.messages[0].content
        return Choice(own) if own.startswith("I am") else SCRIPT(request)

    async def main() -> list[tfgrpo.Rollout]:
        model = ScriptedModel(echo, latency=1.0, group_limit=group_limit)
        async with tfgrpo.MemoryStore() as store:
            await tfgrpo.practice(make_config(tmp_path), agent=Different(), models=models(model), store=store)
            return await rollouts_of(store)

    rollouts = run(main)
    assert len(rollouts) > 30
    for rollout in rollouts:
        assert rollout.trajectory.answer == f"I am attempt {rollout.index} at {rollout.task_id}."


def test_a_request_that_is_never_the_same_twice_survives_a_stop(tmp_path: Path) -> None:
    """Its earlier effects stay paid; the new request goes live, and the record says so."""

    async def main() -> None:
        model = ScriptedModel(SCRIPT, latency=1.0)
        stop = tfgrpo.StopSwitch()

        def hook(event: Event) -> None:
            if isinstance(event, RolloutFinished) and event.phase == "practice":
                stop.stop()

        config = make_config(tmp_path)
        arguments: dict[str, Any] = {"agent": ThreeTurns(), "models": models(model)}
        with pytest.raises(tfgrpo.RunStoppedError):
            await tfgrpo.practice(config, run_dir=tmp_path / "run", stop=stop, hooks=[hook], **arguments)
        await tfgrpo.resume(tmp_path / "run", **arguments)
        assert max(model.served.values()) == 1

    run(main)


def test_a_broken_agent_keeps_its_trajectory_and_the_run_does_not_end_well(tmp_path: Path) -> None:
    async def main() -> list[tfgrpo.Rollout]:
        model = ScriptedModel(SCRIPT)
        async with tfgrpo.MemoryStore() as store:
            with pytest.raises(UnmeasuredError, match=r"AttributeError \(agent\).*has no attribute 'answer'"):
                await tfgrpo.practice(
                    make_config(tmp_path), agent=BreaksAfterTwoTurns(), models=models(model), store=store
                )
            return await rollouts_of(store)

    rollouts = run(main)
    assert rollouts
    for rollout in rollouts:
        assert rollout.reward is None
        assert rollout.fault is not None
        assert (rollout.fault.kind, rollout.fault.error) == (tfgrpo.FaultKind.AGENT, "AttributeError")
        assert [m.role for m in rollout.trajectory.messages] == ["user", "assistant", "user", "assistant"]
        assert rollout.usage.calls >= 1


def test_a_stop_gives_every_waiting_call_an_error_of_its_own() -> None:
    errors: list[tfgrpo.RunStoppedError] = []

    async def main() -> None:
        model = ScriptedModel(SCRIPT, latency=60.0)
        stop = tfgrpo.StopSwitch()
        limits = tfgrpo.Limits(concurrency=4)
        async with tfgrpo.Engine(model, limits=limits, stop=stop) as engine:

            async def ask(number: int) -> None:
                request = tfgrpo.ModelRequest((tfgrpo.Message("user", f"question {number}"),))
                try:
                    await engine.ask(str(number), request)
                except tfgrpo.RunStoppedError as error:
                    errors.append(error)

            async with anyio.create_task_group() as tasks:
                for number in range(2400):
                    tasks.start_soon(ask, number)
                await anyio.sleep(1)
                stop.stop()

    run(main)
    assert len(errors) >= 2390
    assert len({id(error) for error in errors}) == len(errors)
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in errors) <= 20


def test_entries_name_the_groups_that_made_them_and_prompts_their_entries(tmp_path: Path) -> None:
    async def main() -> None:
        model = ScriptedModel(SCRIPT, group_limit=1)
        async with tfgrpo.MemoryStore() as store:
            run = await tfgrpo.practice(
                make_config(tmp_path, practice=12, practice__consolidate="none", practice__propose="add"),
                models=models(model),
                store=store,
            )
            groups = {key.text async for key, _ in store.records("group", GroupRecord)}
            assert len(run.library)
            for entry in run.library.entries:
                assert entry.sources
                assert set(entry.sources) <= groups
            priors = {key.variant: prior async for key, prior in store.records("prior", PriorRecord)}
            learned = await rollouts_of(store, "learned/")
            assert {r.prior.prior for r in learned} <= priors.keys()
            seen = priors[learned[0].prior.prior]
            assert set(seen.entries) <= {entry.id for entry in run.library.entries}
            assert seen.library == run.library.digest
            assert all(r.prior.prior == "" for r in await rollouts_of(store, "baseline/"))

    run(main)


@pytest.mark.lenient_hooks
def test_a_hook_that_raises_is_switched_off_and_the_run_goes_on(tmp_path: Path) -> None:
    seen: list[Event] = []
    calls = 0

    def broken(event: Event) -> None:
        nonlocal calls
        calls += 1
        raise KeyError("my own bug")

    async def main() -> None:
        async with tfgrpo.MemoryStore() as store:
            await tfgrpo.practice(
                make_config(tmp_path),
                models=models(ScriptedModel(SCRIPT)),
                store=store,
                hooks=[broken, seen.append],
            )

    run(main)
    assert calls == 1
    warned = [event.message for event in seen if isinstance(event, Warned)]
    assert len([text for text in warned if "broken raised KeyError" in text]) == 1


class Shouting:
    """A stranger's model: answers in capitals."""

    group_limit = 1

    def __init__(self) -> None:
        self._inner = ScriptedModel(SCRIPT)

    async def complete(self, request: tfgrpo.ModelRequest, **named: Any) -> tfgrpo.ModelReply:
        reply = await self._inner.complete(request, **named)
        if request.response_schema is not None:
            return reply
        return tfgrpo.ModelReply((Choice(reply.content.upper()),), reply.usage)

    async def aclose(self) -> None:
        pass


class AnyCase:
    """A stranger's verifier: gives a bool, and closes."""

    closed = False

    async def verify(self, scope: tfgrpo.Scope) -> float:
        return scope.answer.lower() == scope.task.truth

    async def aclose(self) -> None:
        self.closed = True


def test_agent_verifier_model_and_store_of_a_stranger_are_used(tmp_path: Path) -> None:
    verifier = AnyCase()

    async def main() -> list[tfgrpo.Rollout]:
        async with tfgrpo.MemoryStore() as store:
            await tfgrpo.practice(
                make_config(tmp_path),
                agent=Different(),
                verifier=verifier,
                models=models(Shouting()),
                store=store,
                hooks=[lambda event: None],
            )
            return await rollouts_of(store)

    rollouts = run(main)
    assert all(rollout.trajectory.answer.isupper() for rollout in rollouts)
    assert {rollout.reward.value for rollout in rollouts if rollout.reward} == {0.0, 1.0}
    assert verifier.closed


class ReturnsNothing:
    async def attempt(self, scope: tfgrpo.Scope) -> None:
        await scope.ask(tfgrpo.ModelRequest(scope.messages))


class NotAsync:
    def attempt(self, scope: tfgrpo.Scope) -> str:
        return "blue"


class Ungrading:
    async def verify(self, scope: tfgrpo.Scope) -> None:
        return None


@pytest.mark.parametrize(
    ("agent", "verifier", "kind", "told"),
    [
        (ReturnsNothing(), AnyCase(), "agent", "returned nothing; return the final answer as text"),
        (NotAsync(), AnyCase(), "agent", "write `async def attempt"),
        (None, Ungrading(), "verifier", "The verifier returned nothing; return a tfgrpo.Reward"),
    ],
)
async def test_a_bad_guest_is_a_fault_that_says_what_to_do(
    agent: Any, verifier: Any, kind: str, told: str
) -> None:
    task = tfgrpo.Task("t", "Which way?", "north")
    async with tfgrpo.Engine(ScriptedModel(SCRIPT)) as engine:
        rollout = await engine.attempt(task, agent=agent, verifier=verifier)
        assert rollout.fault is not None
        assert rollout.fault.kind == kind
        assert told in rollout.fault.message
        assert rollout.reward is None
        assert engine.spent.calls == (0 if isinstance(agent, NotAsync) else 1)


async def test_a_misused_engine_says_what_to_do(tmp_path: Path) -> None:
    model = ScriptedModel(SCRIPT)
    request = tfgrpo.ModelRequest((tfgrpo.Message("user", "?"),))
    engine = tfgrpo.Engine(model, store=tmp_path / "job.db")
    with pytest.raises(tfgrpo.UsageError, match="not open: use it inside `async with"):
        await engine.ask("a", request)
    async with engine:
        reply = await engine.ask("a", request)
        assert await engine.ask("a", request) == reply
        with pytest.raises(tfgrpo.JournalError, match="give each request its own key"):
            await engine.ask("a", tfgrpo.ModelRequest((tfgrpo.Message("user", "another"),)))
        with pytest.raises(tfgrpo.UsageError, match="'poet' is no role; the roles are"):
            await engine.ask("b", request, role="poet")
        assert (await engine.ask("c", request)).content  # nothing is broken by all that
    with pytest.raises(tfgrpo.UsageError, match="not open"):
        await engine.ask("a", request)
    with pytest.raises(tfgrpo.ConfigError, match="is a directory; name a file"):
        async with tfgrpo.Engine(model, store=tmp_path):
            pass
    (tmp_path / "other.db").write_bytes(b"not a store at all" * 100)
    with pytest.raises(tfgrpo.JournalError, match=r"is no journal|not a tfgrpo journal|damaged"):
        async with tfgrpo.Engine(model, store=tmp_path / "other.db"):
            pass
