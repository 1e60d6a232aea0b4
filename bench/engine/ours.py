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
from tfgrpo.dispatch.budget import Budget
from tfgrpo.dispatch.calls import Calls
from tfgrpo.distill import Asker, Prompts
from tfgrpo.engine.context import Context, distiller_send
from tfgrpo.engine.practice import run_practice
from tfgrpo.engine.records import GroupRecord
from tfgrpo.events import Hooks
from tfgrpo.journal import Journal
from tfgrpo.library import ExperienceLibrary
from tfgrpo.models import Model
from tfgrpo.protocols import Observer
from tfgrpo.observe import Progress
from tfgrpo.rollout import build_agent
from tfgrpo.run.providers import open_admissions, open_models
from tfgrpo.types import (
    Choice,
    Message,
    ModelReply,
    ModelRequest,
    Operation,
    OperationKind,
    Role,
    Task,
    Usage,
)
from tfgrpo.verify import build_verifier

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
        """As `tfgrpo.run.api` does it."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="run-", dir=FOLDER))
        stack = self._stack
        path = self.directory / "journal.db"
        self.journal = await stack.enter_async_context(
            Journal.create(path, {}) if self._given is None else Journal.open(path)
        )
        # No terminal: plain lines, as in a log.
        progress = stack.enter_context(Progress(Console(file=io.StringIO())))
        self.hooks = Hooks([progress])
        self.models: dict[Role, Model] = dict(
            await open_models(self.config, stack, self.directory, lambda *_: None)
        )
        if self.ask.get("stream"):
            self.models = dict.fromkeys(Role, Streaming(self.models[Role.ROLLOUT]))
        spent = sum(self.journal.reader.usage_by_role().values(), Usage())
        self.calls = Calls(
            self.journal,
            self.models,
            open_admissions(self.config.limits, self.models),
            Budget(self.config.budget, spent),
            self.config,
            self.hooks,
        )
        self.calls.count_open_intents()

    async def call(self, index: int) -> Answer:
        """One journaled call."""
        reply = await self.calls.complete(work.key(index), Role.ROLLOUT, request(index))
        return Answer(reply.choices[0].content, reply.usage.tokens)

    async def context(self, tasks: Sequence[Task]) -> Context:
        """The parts as a practice step takes them."""
        verifier = build_verifier(self.config.verifier)
        self._stack.push_async_callback(verifier.aclose)
        return Context(
            config=self.config,
            directory=self.directory,
            journal=self.journal,
            calls=self.calls,
            agent=build_agent(self.config.agent),
            verifier=verifier,
            asker=Asker(distiller_send(self.calls, self.config.run.seed), Prompts(None), self.config),
            hooks=self.hooks,
            practice_tasks=tuple(tasks),
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


def request(index: int) -> ModelRequest:
    """One call of the bench as the engine makes it: the rollouts of a group have one prompt."""
    return ModelRequest(prompt(index // work.GROUP), max_tokens=work.MAX_TOKENS, seed=index)


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
        learned = await run_practice(context, first_library())
        wall = time.perf_counter() - start
        groups = opened.journal.records("group", GroupRecord)
        taught = sum(group.advantage is not None for group in groups.values())
        return {"wall": wall, "taught": taught, "entries": len(learned), "digest": learned.digest}
    finally:
        await opened.close()


async def fill(ask: dict[str, Any]) -> dict[str, Any]:
    """A journal with so many completed calls, for a resume."""
    left = iter(range(ask["calls"]))
    async with Journal.create(Path(ask["directory"]) / "journal.db", {}) as journal:

        async def writer() -> None:
            for index in left:
                key = work.key(index)
                await journal.intend(key, 0, Role.ROLLOUT, request(index))
                reply = ModelReply(
                    (Choice(f"{index:08x} " + "and so the answer is forty two " * 12),),
                    Usage(1, 600, 0, 100),
                    work.MODEL,
                )
                await journal.complete(key, 0, reply)

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
