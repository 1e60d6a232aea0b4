"""Our engine, opened as a run opens it, with everything on. The only file of the bench that knows the engine's inside.

Journal on disk with `synchronous=FULL`, admission, budget, hooks with the progress line, the client of the shipped
model. `Opened` serves single calls; `practise` runs real steps; `fill` and `first_call` are about resuming.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
from bench.engine import lessons, work
from bench.engine.protocol import Answer
from rich.console import Console

from tfgrpo.config import Config, resolve_config
from tfgrpo.dispatch import Budget, Dispatcher
from tfgrpo.distill import Prompts
from tfgrpo.engine.context import Context
from tfgrpo.engine.practice import run_practice
from tfgrpo.engine.records import GroupRecord
from tfgrpo.events import Hooks
from tfgrpo.journal import Journal, digest_of
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.models import Model
from tfgrpo.observe import Progress
from tfgrpo.protocols import AttemptLimits, Effect, Observer
from tfgrpo.run.build import build_agent, build_asker, build_cache, build_gate, build_verifier
from tfgrpo.run.inputs import limits_of, method_of
from tfgrpo.run.providers import open_models, price_of
from tfgrpo.run.session import close_verifier, open_dispatcher, window_of
from tfgrpo.trust import Overtaken
from tfgrpo.types import (
    Choice,
    EffectKind,
    Message,
    ModelReply,
    ModelRequest,
    Operation,
    OperationKind,
    Role,
    Task,
    Usage,
)

FOLDER = Path(__file__).parents[2] / ".cache" / "bench" / "engine"


def config_for(ask: dict[str, Any], **sections: Any) -> Config:
    """The configuration of a run against the server of `ask`."""
    body = {
        "model": {"base_url": ask["url"], "name": work.MODEL, "group_requests": "never"},
        "limits": {"concurrency": ask["in_flight"]},
        # Never read: no tasks are loaded from files here.
        "data": {"held_out": "held_out.jsonl"},
        "budget": {"tokens": 10**12},
    }
    return resolve_config(body | sections, place="bench", environment=False)


class Opened:
    """The open parts of a run on a new journal, or on the one in `directory`."""

    def __init__(self, ask: dict[str, Any], config: Config, directory: Path | None = None) -> None:
        self.ask = ask
        self.config = config
        self._given = directory
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """As `tfgrpo.run` does it."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="run-", dir=FOLDER))
        stack, config = self._stack, self.config
        path = self.directory / "journal.db"
        self.journal = await stack.enter_async_context(
            await Journal.create(path, {}) if self._given is None else await Journal.open(path)
        )
        # No terminal: plain lines, as in a log.
        progress = stack.enter_context(Progress(Console(file=io.StringIO())))
        self.hooks = Hooks([progress])
        limits = limits_of(config)
        endpoints = {role: config.model.role(role) for role in Role}
        models: dict[Role, Model] = dict(await open_models(endpoints, limits, stack, self.directory))
        if self.ask.get("stream"):
            models = dict.fromkeys(Role, Streaming(models[Role.ROLLOUT]))
        self.dispatcher: Dispatcher = await stack.enter_async_context(
            open_dispatcher(
                self.journal,
                models,
                self.hooks,
                limits=limits,
                budget=Budget(config.budget.usd, config.budget.tokens),
                prices={role: price_of(endpoint.price) for role, endpoint in endpoints.items()},
                seed=config.run.seed,
            )
        )

    async def call(self, index: int) -> Answer:
        """One journaled call."""
        reply = await self.dispatcher.ask(key(index), Role.ROLLOUT, request(index))
        return Answer(reply.content, reply.usage.tokens)

    async def context(self, tasks: Sequence[Task]) -> Context:
        """The parts as a practice step takes them."""
        config = self.config
        method = method_of(config)
        verifier = build_verifier(config.verifier)
        self._stack.push_async_callback(close_verifier, verifier)
        return Context(
            method=method,
            store=self.journal,
            dispatcher=self.dispatcher,
            agent=build_agent(config.agent),
            verifier=verifier,
            asker=build_asker(config, Prompts(None), self.dispatcher),
            hooks=self.hooks,
            cache=build_cache(config.model.role(Role.ROLLOUT)),
            directory=self.directory / "library",
            screens=(Overtaken(),),
            practice_tasks=tuple(tasks),
            limits=AttemptLimits(config.limits.task_timeout),
            window=window_of(limits_of(config)),
        )

    async def close(self) -> None:
        """Ends the run and removes its folder, unless it was given."""
        await self._stack.aclose()
        if self._given is None:
            shutil.rmtree(self.directory)


class Streaming:
    """A model whose answers come in pieces, as the engine asks for them when followers wait for the first token."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def group_limit(self) -> int | None:
        return self._model.group_limit

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        return await self._model.complete(request, key=key, observer=observer, stream=True)

    async def aclose(self) -> None:
        await self._model.aclose()


def key(index: int) -> Key:
    """The key of one call, as a job's own."""
    return Key("ask", task=work.key(index))


def request(index: int) -> ModelRequest:
    """One call of the bench as the engine makes it: the rollouts of a group have one prompt; keys make the seeds."""
    return ModelRequest(prompt(index // work.GROUP), max_tokens=work.MAX_TOKENS)


@lru_cache(1024)
def prompt(group: int) -> tuple[Message, ...]:
    """The messages of a group."""
    system, question = work.messages(group * work.GROUP)
    return (Message("system", system["content"]), Message("user", question["content"]))


def practice_config(ask: dict[str, Any]) -> Config:
    """One step over all tasks, with every stage of the method on."""
    return config_for(
        ask,
        practice={
            "epochs": 1,
            "batch_size": ask["tasks"],
            "group_size": ask["group"],
            "shuffle": False,
            "summaries": "always",
            "propose": "model",
            "consolidate": "batch",
            "learning_objective": lessons.OBJECTIVE,
        },
        agent={"system": work.SYSTEM, "max_tokens": work.MAX_TOKENS},
    )


def practice_tasks(ask: dict[str, Any]) -> list[Task]:
    """The questions of the step."""
    return [Task(f"t{number:04}", work.question(number), lessons.TRUTH) for number in range(ask["tasks"])]


def first_library() -> ExperienceLibrary:
    """A few experiences, so that a proposal has to be asked for."""
    operations = [
        Operation(OperationKind.ADD, text=text, index=index) for index, text in enumerate(lessons.KNOWN)
    ]
    return ExperienceLibrary.empty().apply(operations)[0]


async def practise(ask: dict[str, Any]) -> dict[str, Any]:
    """One real step on a new journal; the time is that of the step, opening and closing left out."""
    opened = Opened(ask, practice_config(ask))
    await opened.open()
    try:
        context = await opened.context(practice_tasks(ask))
        (opened.directory / "library").mkdir()
        start = time.perf_counter()
        learned = await run_practice(context, first_library(), build_gate(context.method))
        wall = time.perf_counter() - start
        taught = 0
        async for _, group in opened.journal.records("group", GroupRecord):
            taught += group.advantage is not None
        return {"wall": wall, "taught": taught, "entries": len(learned), "digest": learned.digest}
    finally:
        await opened.close()


async def fill(ask: dict[str, Any]) -> dict[str, Any]:
    """A journal with so many completed calls, for a resume."""
    left = iter(range(ask["calls"]))
    async with await Journal.create(Path(ask["directory"]) / "journal.db", {}) as journal:

        async def writer() -> None:
            for index in left:
                asked = request(index)
                effect = Effect(key(index), EffectKind.MODEL, Role.ROLLOUT, digest_of(asked), asked)
                (ticket,) = await journal.intend([effect])
                reply = ModelReply(
                    (Choice(f"{index:08x} " + "and so the answer is forty two " * 12),),
                    Usage(1, 600, 0, 100),
                    work.MODEL,
                )
                await journal.complete(ticket, reply, reply.usage)

        async with anyio.create_task_group() as group:
            for _ in range(512):
                group.start_soon(writer)
    return {}


async def first_call(ask: dict[str, Any]) -> dict[str, Any]:
    """Open the journal of an earlier run and make one call that it does not hold; the server notes when it came."""
    opened = Opened(ask, config_for(ask), Path(ask["directory"]))
    await opened.open()
    try:
        known = await opened.call(0)
        answer = await opened.call(int(ask["new"]))
        return {"known": int(known.text[:8], 16) == 0, "mark": int(answer.text[:8], 16)}
    finally:
        await opened.close()
