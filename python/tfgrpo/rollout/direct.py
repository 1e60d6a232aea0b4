"""Direct prompting: one prompt, one answer."""

from __future__ import annotations

from tfgrpo.config import AgentSection
from tfgrpo.rollout.agent import Ask, Attempt
from tfgrpo.types import Message, ModelRequest, StopReason, Trajectory


class DirectAgent:
    """Sends the assembled prompt once; the reply is the answer."""

    def __init__(self, section: AgentSection) -> None:
        self._section = section

    async def attempt(self, messages: tuple[Message, ...], ask: Ask) -> Attempt:
        """See `Agent.attempt`."""
        request = ModelRequest(
            messages,
            top_p=self._section.top_p,
            max_tokens=self._section.max_tokens,
            response_schema=self._section.response_schema,
        )
        choice = await ask(request)
        answer = Message("assistant", choice.content, choice.tool_calls)
        return Attempt(Trajectory((*messages, answer)), choice.stop_reason is StopReason.LENGTH)
