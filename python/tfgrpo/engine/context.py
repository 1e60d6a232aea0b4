"""What a run works with, opened once and handed down: nothing here decides anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tfgrpo.dispatch import Dispatcher, PrefixCache, PrefixGroup, Priority
from tfgrpo.distill import Asker
from tfgrpo.engine.plan import Method
from tfgrpo.errors import GroupRequestUnsupportedError
from tfgrpo.events import Hooks
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.protocols import Agent, AttemptLimits, Store, Tool, Verifier
from tfgrpo.tasks import gather_ordered
from tfgrpo.trust import Screen
from tfgrpo.types import ModelReply, ModelRequest, PriorRecord, Role, Task, Usage


@dataclass(frozen=True)
class Context:
    """The open parts of a run.

    `window` is how many groups are under way at once; `directory` is where the library of each step is written,
    None for nowhere.
    """

    method: Method
    store: Store
    dispatcher: Dispatcher
    agent: Agent
    verifier: Verifier
    asker: Asker
    hooks: Hooks
    cache: PrefixCache
    directory: Path | None = None
    screens: tuple[Screen, ...] = ()
    practice_tasks: tuple[Task, ...] = ()
    limits: AttemptLimits = field(default_factory=AttemptLimits)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    window: int = 256

    async def assembler(self, library: ExperienceLibrary, batch: Sequence[Task]) -> PromptAssembler:
        """The prompt of a batch of tasks with this library as its token prior, which is recorded.

        Raises:
            JournalError: the record cannot be made durable.
        """
        assembler = PromptAssembler(
            library, self.method.library_tokens, system=self.method.system, batch=batch
        )
        await record_prior(self.store, assembler)
        return assembler

    def step_prefix(self, assembler: PromptAssembler, tasks: Sequence[Task]) -> PrefixGroup:
        """The prompts of several tasks: they have the system text and the prior in common."""
        shared = (assembler.assemble(tasks[0]).breakpoints or (0,))[-1] if tasks else 0
        return PrefixGroup(self.cache, shared, self.cache.leading_questions)


async def record_prior(store: Store, assembler: PromptAssembler) -> None:
    """Record once which entries stand in a prior, under the digest of its text."""
    prior = assembler.prior
    if not prior.ids:
        return
    key = Key("prior", variant=prior.digest)
    if await store.get("prior", key, PriorRecord) is None:
        record = PriorRecord(prior.library.digest, prior.library.version, prior.ids, prior.tokens)
        await store.record("prior", key, record)


def distiller_send(dispatcher: Dispatcher) -> Callable[[Key, ModelRequest], Awaitable[ModelReply]]:
    """How distillation sends a request: as the distiller, on the critical path, with a seed of its own.

    Several answers to one request are asked for one by one where the endpoint has no group requests.
    """

    async def one(key: Key, request: ModelRequest) -> ModelReply:
        return await dispatcher.ask(key, Role.DISTILLER, request, priority=Priority.CRITICAL)

    async def send(key: Key, request: ModelRequest) -> ModelReply:
        limit = dispatcher.group_limit(Role.DISTILLER)
        if request.n == 1:
            return await one(key, request)
        if limit is None or request.n <= limit:
            try:
                return await one(key, request)
            except GroupRequestUnsupportedError:
                if dispatcher.group_limit(Role.DISTILLER) == limit:
                    raise
        single = msgspec.structs.replace(request, n=1)
        replies = await gather_ordered(
            range(request.n), lambda place: one(key.do("n", str(place)), single), paid=True
        )
        choices = tuple(choice for reply in replies for choice in reply.choices)
        return ModelReply(choices, sum((reply.usage for reply in replies), Usage()), replies[0].model)

    return send
