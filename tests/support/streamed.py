"""A scripted model whose first token can be seen, behind a simulated prefix cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import anyio
import msgspec

from tfgrpo.errors import ServerError
from tfgrpo.models import Observer
from tfgrpo.testing.scripted import usage_of
from tfgrpo.testing.scripts import Script, answers
from tfgrpo.types import ModelReply, ModelRequest


class Sent(NamedTuple):
    """One attempt that left."""

    key: str
    at: float
    stream: bool
    fresh: int  # prompt words that the cache did not have


class StreamedModel:
    """Answers by script (implements `Model`).

    Args:
        script: request to answers.
        first: seconds to the first token, or a function of the key.
        rest: seconds from there to the end.
        group_limit: the largest `n`.
        broken: the keys that are answered with a server error.
        cached: whether replies tell what the prefix cache had. The cache keeps a prompt from its first token on.
    """

    def __init__(
        self,
        script: Script,
        first: float | Callable[[str], float] = 1.0,
        rest: float | Callable[[str], float] = 10.0,
        *,
        group_limit: int | None = 1,
        broken: Callable[[str], bool] = lambda _key: False,
        cached: bool = True,
    ) -> None:
        self.sent: list[Sent] = []
        self.group_limit = group_limit
        self._script = script
        self._first = first
        self._rest = rest
        self._broken = broken
        self._cached = cached
        self._stored: set[tuple[str, ...]] = set()

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        words = tuple(" ".join(message.content for message in request.messages).split())
        blocks = [words[:end] for end in range(16, len(words) + 1, 16)]
        cached = max((len(block) for block in blocks if block in self._stored), default=0)
        self.sent.append(Sent(key, anyio.current_time(), stream, len(words) - cached))
        if observer is not None:
            observer.sent()
        await anyio.sleep(self._first(key) if callable(self._first) else self._first)
        if self._broken(key):
            raise ServerError("broken by plan")
        self._stored.update(blocks)
        if stream and observer is not None:
            observer.first_token()
        await anyio.sleep(self._rest(key) if callable(self._rest) else self._rest)
        choices = answers(self._script, request)
        usage = usage_of(request, choices)
        if self._cached:
            usage = msgspec.structs.replace(usage, cached_tokens=cached)
        return ModelReply(choices, usage, "streamed")

    async def aclose(self) -> None:
        pass

    def times(self, prefix: str) -> dict[str, float]:
        """When the calls whose keys start so were sent, by key."""
        return {sent.key: sent.at for sent in self.sent if sent.key.startswith(prefix)}
