"""The common first turn of a group's rollouts: as few requests as the endpoint permits, and one of them leads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import anyio
import msgspec

from tfgrpo.dispatch.prefix import Convoy, leading
from tfgrpo.dispatch.priority import Priority
from tfgrpo.engine.context import Context
from tfgrpo.engine.records import key_of_index, seed_of
from tfgrpo.errors import ModelError
from tfgrpo.library import PromptAssembler
from tfgrpo.models import GroupRequestUnsupportedError
from tfgrpo.rollout import Deadline
from tfgrpo.types import Choice, ModelReply, ModelRequest, Role, Task


class FirstTurn:
    """The common first turn of a block of rollouts.

    The block is cut into chunks of as many answers as one request may ask for. Where the provider caches
    prefixes, the first chunk to ask leads and the others follow at its first token: their prompts are the same
    to the last byte.

    Args:
        context: the open parts of the run.
        key: logical key of the group.
        task: the question.
        indices: the rollouts, without gaps.
        assembler: the prompt.
        convoy: the prompts that begin as this one does: those of the step.
        priority: of the chunk that leads, and of all where none does.
        single: every rollout makes a request of its own.
    """

    def __init__(
        self,
        context: Context,
        key: str,
        task: Task,
        indices: Sequence[int],
        assembler: PromptAssembler,
        convoy: Convoy,
        *,
        priority: Priority,
        single: bool,
    ) -> None:
        self._calls = context.calls
        self._cache = context.prefix_cache
        self._key = key
        self._task = task
        self._first = indices[0] if indices else 0
        self._count = len(indices)
        self._step = convoy
        self._group = context.group_convoy(assembler, task)
        self._priority = priority
        self._single = single
        self._locks: dict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._outcomes: dict[str, ModelReply | ModelError] = {}
        self._deadlines: dict[str, list[Deadline]] = defaultdict(list)

    async def choice(self, index: int, request: ModelRequest, seed: int, deadline: Deadline) -> Choice:
        """The answer of one rollout; the first rollout of a chunk to ask makes the request for all of it.

        Args:
            index: the rollout.
            request: what it asks, the same for all.
            seed: of the run.
            deadline: of the rollout; started when the request of its chunk is sent.

        Raises:
            ModelError: the shared call failed; every rollout of the chunk gets the same error.
        """
        while True:
            limit = 1 if self._single else self._calls.group_limit(Role.ROLLOUT)
            size = min(limit or self._count, self._count)
            start = self._first + (index - self._first) // size * size
            count = min(size, self._first + self._count - start)
            key = f"{key_of_index(self._key, start)}x{count}"
            self._deadlines[key].append(deadline)
            try:
                reply = await self._shared(key, count, request, seed, deadline)
            except GroupRequestUnsupportedError:
                if self._calls.group_limit(Role.ROLLOUT) == limit:
                    raise
                continue  # the endpoint has just told its limit: ask again within it
            return reply.choices[index - start]

    async def _shared(
        self, key: str, count: int, request: ModelRequest, seed: int, deadline: Deadline
    ) -> ModelReply:
        async with self._locks[key]:
            outcome = self._outcomes.get(key)
            if outcome is None:
                asked = msgspec.structs.replace(request, n=count, seed=seed_of(seed, key))
                try:
                    outcome = await self._ask(key, asked)
                except ModelError as error:
                    outcome = error
                except anyio.get_cancelled_exc_class():
                    # Out of time, and so is the chunk: whoever waits for the lock must not pay once more.
                    if deadline.error is not None:
                        self._outcomes[key] = deadline.error
                    raise
                self._outcomes[key] = outcome
        if isinstance(outcome, ModelError):
            raise outcome
        return outcome

    async def _ask(self, key: str, request: ModelRequest) -> ModelReply:
        """Make the request of a chunk, in front of the others or behind them."""
        several = request.n < self._count and self._group.active
        with leading() as places:
            if several:
                places.add(await self._group.join(self._task))
            # A follower's leader has waited for the leaders of the step.
            follows = several and not places.own
            if not follows:
                places.add(await self._step.join(self._task))

            def launched() -> None:
                for deadline in self._deadlines[key]:
                    deadline.start()
                places.launched()

            def limited() -> None:
                for deadline in self._deadlines[key]:
                    deadline.pause()

            reply = await self._calls.complete(
                key,
                Role.ROLLOUT,
                request,
                priority=Priority.FINISH if follows else self._priority,
                stream=bool(places.own),
                on_launch=launched,
                on_first_token=places.first_token,
                on_limited=limited,
                abandoned=lambda: next((d.error for d in self._deadlines[key] if d.error is not None), None),
            )
            places.first_token()  # a model that does not tell its first token has told it now
        self._cache.reported(reply.usage)
        return reply
