"""The protocol of an agent: it attempts one task once, asking the model as often as it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from tfgrpo.config import AgentSection
from tfgrpo.types import Choice, Message, ModelRequest, Struct, Trajectory

#: Asks the model for one answer; the runner gives every turn its key, its seed and its temperature.
Ask = Callable[[ModelRequest], Awaitable[Choice]]


class Attempt(Struct, frozen=True):
    """What an agent brings back: its trajectory, and whether the length limit cut it off."""

    trajectory: Trajectory
    truncated: bool = False


class Agent(Protocol):
    """Attempts one task once. Users subclass nothing."""

    async def attempt(self, messages: tuple[Message, ...], ask: Ask) -> Attempt:
        """Attempt a task.

        Args:
            messages: the assembled prompt: system text and token prior, then the question.
            ask: asks the model. The first request of every attempt of a group should be the same, so that
                the group can share one request.

        Raises:
            TfgrpoError: becomes the rollout's fault.

        Cancellation: propagates; nothing is recorded for the attempt.
        """
        ...


def build_agent(section: AgentSection) -> Agent:
    """The agent that `[agent]` describes."""
    from tfgrpo.rollout.direct import DirectAgent

    return DirectAgent(section)
