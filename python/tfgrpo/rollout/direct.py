"""Direct prompting: one prompt, one answer."""

from __future__ import annotations

from typing import Any

from tfgrpo.protocols import Scope
from tfgrpo.types import ModelRequest


class DirectAgent:
    """Sends the assembled prompt once; the reply is the answer.

    Args:
        max_tokens: the longest answer; None leaves it to the endpoint.
        top_p: nucleus sampling; None leaves it to the endpoint.
        response_schema: a JSON schema that the answer must follow.
    """

    def __init__(
        self,
        *,
        max_tokens: int | None = None,
        top_p: float | None = None,
        response_schema: dict[str, Any] | None = None,
    ) -> None:
        self._asked = {"max_tokens": max_tokens, "top_p": top_p, "response_schema": response_schema}

    async def attempt(self, scope: Scope) -> str:
        """See `Agent.attempt`."""
        reply = await scope.ask(ModelRequest(scope.messages, **self._asked))  # type: ignore[arg-type]
        return reply.content
