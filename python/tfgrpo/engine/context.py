"""What a run works with, opened once and handed down: nothing here decides anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec

from tfgrpo.config import Config
from tfgrpo.dispatch.calls import Calls
from tfgrpo.dispatch.prefix import Convoy, PrefixCache
from tfgrpo.dispatch.priority import Priority
from tfgrpo.distill import Asker
from tfgrpo.engine.records import key_of, seed_of
from tfgrpo.errors import FATAL_ERRORS, TfgrpoError
from tfgrpo.events import Hooks
from tfgrpo.journal import Journal
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.models import GroupRequestUnsupportedError
from tfgrpo.rollout import Agent
from tfgrpo.types import ModelReply, ModelRequest, Role, Task, Usage
from tfgrpo.verify import Verifier

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Context:
    """The open parts of a run."""

    config: Config
    directory: Path
    journal: Journal
    calls: Calls
    agent: Agent
    verifier: Verifier
    asker: Asker
    hooks: Hooks
    practice_tasks: tuple[Task, ...]

    def assembler(self, library: ExperienceLibrary, batch: Sequence[Task]) -> PromptAssembler:
        """The prompt of a batch of tasks with this library as its token prior."""
        return PromptAssembler(
            library, self.config.practice.library_tokens, system=self.config.agent.system, batch=batch
        )

    @cached_property
    def prefix_cache(self) -> PrefixCache:
        """What is known of the prefix cache of the rollout model's provider."""
        return PrefixCache(self.config.model.role(Role.ROLLOUT))

    def convoy(self, assembler: PromptAssembler, tasks: Sequence[Task]) -> Convoy:
        """The prompts of several tasks: they have the system text and the prior in common."""
        shared = (assembler.assemble(tasks[0]).breakpoints or (0,))[-1] if tasks else 0
        return Convoy(self.prefix_cache, assembler, shared, self.prefix_cache.leading_questions)

    def group_convoy(self, assembler: PromptAssembler, task: Task) -> Convoy:
        """The prompts of one group: they have everything in common."""
        shared = sum(segment.tokens for segment in assembler.assemble(task).segments)
        return Convoy(self.prefix_cache, assembler, shared)


def distiller_send(calls: Calls, seed: int) -> Callable[[str, ModelRequest], Awaitable[ModelReply]]:
    """How distillation sends a request: as the distiller, on the critical path, with a seed of its own.

    Several answers to one request are asked for one by one where the endpoint has no group requests.
    """

    async def one(key: str, request: ModelRequest) -> ModelReply:
        seeded = msgspec.structs.replace(request, seed=seed_of(seed, key))
        return await calls.complete(key, Role.DISTILLER, seeded, priority=Priority.CRITICAL)

    async def send(key: str, request: ModelRequest) -> ModelReply:
        limit = calls.group_limit(Role.DISTILLER)
        if request.n == 1:
            return await one(key, request)
        if limit is None or request.n <= limit:
            try:
                return await one(key, request)
            except GroupRequestUnsupportedError:
                if calls.group_limit(Role.DISTILLER) == limit:
                    raise
        single = msgspec.structs.replace(request, n=1)
        replies = await each(
            range(request.n), lambda place: one(f"{key}/{key_of('n', place)}", single), paid=True
        )
        choices = tuple(choice for reply in replies for choice in reply.choices)
        return ModelReply(choices, sum((reply.usage for reply in replies), Usage()), replies[0].model)

    return send


async def each(items: Iterable[A], work: Callable[[A], Awaitable[B]], *, paid: bool = False) -> list[B]:
    """Work on all items at once; results in the order of the items, whatever finishes first.

    The first error of any item cancels all others, and is raised as it is, not in a group: what stops the run
    before what spoils one item, where both happened.

    Args:
        items: what to work on.
        work: on one of them.
        paid: what spoils one item leaves the others to end, since their calls are paid; then the first error in the
            order of the items is raised. Only for items that do not wait for one another.

    Cancellation: cancels all items.
    """
    todo = list(items)
    results: dict[int, B] = {}
    spoilt: dict[int, TfgrpoError] = {}

    async def one(index: int, item: A) -> None:
        try:
            results[index] = await work(item)
        except TfgrpoError as error:
            if not paid or isinstance(error, FATAL_ERRORS):
                raise
            spoilt[index] = error

    try:
        async with anyio.create_task_group() as group:
            for index, item in enumerate(todo):
                group.start_soon(one, index, item)
    except BaseExceptionGroup as errors:
        told: BaseExceptionGroup[TfgrpoError] | None = errors.subgroup(TfgrpoError)
        if told is not None:
            raise _first(told) from None
        raise
    if spoilt:
        raise spoilt[min(spoilt)]
    return [results[index] for index in range(len(todo))]


def _first(errors: BaseExceptionGroup[TfgrpoError]) -> TfgrpoError:
    """What stops the run before what spoils one item; of several the one that FATAL_ERRORS names first."""
    found: list[TfgrpoError] = []

    def gather(group: BaseExceptionGroup[TfgrpoError]) -> None:
        for error in group.exceptions:
            if isinstance(error, BaseExceptionGroup):
                gather(error)
            else:
                found.append(error)

    gather(errors)
    families = (*FATAL_ERRORS, TfgrpoError)
    return min(found, key=lambda error: [isinstance(error, family) for family in families].index(True))
