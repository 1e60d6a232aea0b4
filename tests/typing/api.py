"""The public API as a stranger's type checker sees it: `mypy --strict` reads this file, nothing runs it.

Every class here is written without inheritance: whatever has the methods is an agent, a verifier, a tool, a model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, assert_type

import tfgrpo
from tfgrpo.events import Event, RolloutFinished
from tfgrpo.protocols import Observer
from tfgrpo.run import Outcomes

# --- parts of a stranger ---------------------------------------------------------------------------------


class Drafts:
    """An agent: drafts, uses a tool, and answers."""

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        assert_type(scope.task, tfgrpo.Task)
        assert_type(scope.index, int)
        assert_type(scope.prior, tfgrpo.TokenPrior)
        assert_type(scope.messages, tuple[tfgrpo.Message, ...])
        assert_type(scope.trajectory, tfgrpo.Trajectory)
        draft = await scope.ask(tfgrpo.ModelRequest(scope.messages, temperature=0.2))
        assert_type(draft, tfgrpo.ModelReply)
        found = await scope.call("look_up", {"name": draft.content})
        assert_type(found, str)
        assert_type(await scope.call(LookUp(), {"name": "x"}), str)
        scope.note("found it")
        more = tfgrpo.Message("user", found)
        reply = await scope.ask(tfgrpo.ModelRequest((*scope.messages, draft.message, more)))
        return reply.content


class AnyCase:
    """A verifier: grades with a bool, which is a number."""

    async def verify(self, scope: tfgrpo.Scope) -> bool:
        return scope.answer.lower() == scope.task.truth


class Judged:
    """A verifier: asks the judge."""

    async def verify(self, scope: tfgrpo.Scope) -> tfgrpo.Reward:
        question = tfgrpo.Message("user", f"Is this right? {scope.answer}")
        reply = await scope.judge(tfgrpo.ModelRequest((question,)))
        return tfgrpo.Reward(float(reply.content == "yes"), scope.answer)


class LookUp:
    """A tool with a plain attribute for its name."""

    name = "look_up"

    async def run(self, arguments: Mapping[str, Any]) -> str:
        return str(arguments.get("name", ""))


class Shouting:
    """A model."""

    group_limit: int | None = 1

    async def complete(
        self,
        request: tfgrpo.ModelRequest,
        *,
        key: str = "",
        observer: Observer | None = None,
        stream: bool = False,
    ) -> tfgrpo.ModelReply:
        if observer is not None:
            observer.sent()
        said = request.messages[-1].content.upper()
        return tfgrpo.ModelReply((tfgrpo.Choice(said),), tfgrpo.Usage(1, 3, 0, 3))

    async def aclose(self) -> None: ...


class Bare:
    """A model that takes what it does not need by name."""

    @property
    def group_limit(self) -> int | None:
        return None

    async def complete(self, request: tfgrpo.ModelRequest, **named: Any) -> tfgrpo.ModelReply:
        return tfgrpo.ModelReply((tfgrpo.Choice("yes"),) * request.n, tfgrpo.Usage(1, 1, 0, 1))

    async def aclose(self) -> None: ...


def print_rollout(event: Event) -> None:
    """A hook."""
    if isinstance(event, RolloutFinished):
        assert_type(event.rollout, tfgrpo.Rollout)


class Counts:
    """A hook that receives some events only."""

    wants = (RolloutFinished,)

    def __call__(self, event: Event) -> None: ...


agent: tfgrpo.Agent = Drafts()
direct: tfgrpo.Agent = tfgrpo.DirectAgent(max_tokens=100)
verifier: tfgrpo.Verifier = AnyCase()
judged: tfgrpo.Verifier = Judged()
tool: tfgrpo.Tool = LookUp()
model: tfgrpo.Model = Shouting()
bare: tfgrpo.Model = Bare()
memory: tfgrpo.Store = tfgrpo.MemoryStore()
hook: tfgrpo.Hook = print_rollout
counting: tfgrpo.Hook = Counts()


async def journal_is_a_store(path: Path) -> tfgrpo.Store:
    return await tfgrpo.Journal.open(path)


# --- the engine as a library -------------------------------------------------------------------------------


def many() -> Iterator[tuple[str, tfgrpo.ModelRequest]]:
    for number in range(1_000_000):
        yield f"summary/{number}", tfgrpo.ModelRequest((tfgrpo.Message("user", f"Number {number}."),))


async def many_asynchronously() -> AsyncIterator[tuple[str, tfgrpo.ModelRequest]]:
    for key, request in many():
        yield key, request


async def batch(library: tfgrpo.ExperienceLibrary, task: tfgrpo.Task, request: tfgrpo.ModelRequest) -> None:
    async with tfgrpo.Engine(
        model=Shouting(),
        limits=tfgrpo.Limits(concurrency=256, requests_per_minute=10_000),
        budget=tfgrpo.Budget(usd=5),
        store="job.db",
        price=tfgrpo.Price(0.27, 1.10),
        hooks=[print_rollout, Counts()],
        tools=[LookUp()],
        stop=tfgrpo.StopSwitch(),
    ) as engine:
        assert_type(engine, tfgrpo.Engine)
        assert_type(engine.store, tfgrpo.Store)
        assert_type(engine.spent, tfgrpo.Usage)
        reply = await engine.ask("summary/17", request)
        assert_type(reply, tfgrpo.ModelReply)
        assert_type(await engine.ask("verdict/17", request, role="judge"), tfgrpo.ModelReply)
        assert_type(engine.map(many()), Outcomes)
        async for key, outcome in engine.map(many()):
            assert_type(key, str)
            assert_type(outcome, tfgrpo.ModelReply | tfgrpo.Fault)
        async for _, outcome in engine.map(many_asynchronously(), role=tfgrpo.Role.JUDGE, window=100):
            if isinstance(outcome, tfgrpo.Fault):
                assert_type(outcome.kind, tfgrpo.FaultKind)
            else:
                assert_type(outcome.content, str)
        rollout = await engine.attempt(task, agent=Drafts(), verifier=AnyCase(), prior=library)
        assert_type(rollout, tfgrpo.Rollout)
        assert_type(rollout.reward, tfgrpo.Reward | None)
        assert_type(rollout.fault, tfgrpo.Fault | None)


async def engines_that_are_opened_otherwise() -> None:
    async with tfgrpo.Engine({"base_url": "https://api.example.com/v1", "name": "a"}, store=Path("job.db")):
        pass
    async with tfgrpo.Engine({"local": "default"}):
        pass
    async with tfgrpo.Engine({tfgrpo.Role.ROLLOUT: Shouting()}, store=tfgrpo.MemoryStore()):
        pass


# --- runs --------------------------------------------------------------------------------------------------


def practise(path: Path) -> None:
    config = tfgrpo.load_config(path, {"practice.epochs": 1})
    assert_type(config, tfgrpo.Config)
    run = tfgrpo.practice_sync(config)
    assert_type(run, tfgrpo.Run)
    assert_type(run.library, tfgrpo.ExperienceLibrary)
    assert_type(run.directory, Path | None)
    assert_type(tfgrpo.evaluate_sync(config, library=run.library), tfgrpo.Run)
    assert_type(tfgrpo.resume_sync("runs/a"), tfgrpo.Run)


async def practise_with_guests(config: tfgrpo.Config) -> None:
    async with tfgrpo.MemoryStore() as store:
        models: dict[tfgrpo.Role, tfgrpo.Model] = dict.fromkeys(tfgrpo.Role, Shouting())
        run = await tfgrpo.practice(
            config,
            agent=Drafts(),
            verifier=AnyCase(),
            tools=[LookUp()],
            hooks=[print_rollout],
            models=models,
            store=store,
        )
        assert_type(run, tfgrpo.Run)
    assembler = tfgrpo.PromptAssembler(run.library, token_budget=2000)
    assert_type(assembler.prior, tfgrpo.TokenPrior)
    assert_type(await tfgrpo.evaluate(config, library=run.library), tfgrpo.Run)
    assert_type(await tfgrpo.resume("runs/a", overrides={"budget.usd": 10}), tfgrpo.Run)
