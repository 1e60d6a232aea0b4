"""What was done in one rollout, step by step (METHOD step 3)."""

from __future__ import annotations

import json
from typing import Literal

from tfgrpo.distill.ask import Asker
from tfgrpo.keys import Key
from tfgrpo.models.structured import StructuredOutputError, parse_json_object
from tfgrpo.types import Message, Rollout, Task

#: Characters up to which a single answer is its own summary: retelling it would only add words.
SHORT = 400


async def summarize(
    asker: Asker,
    key: Key,
    task: Task,
    rollout: Rollout,
    experiences: str,
    when: Literal["auto", "always", "never"],
) -> str:
    """Summarise one rollout; without ground truth neither reward nor truth is shown.

    Args:
        asker: asks the distiller.
        key: of the call.
        task: the question.
        rollout: the attempt.
        experiences: the token prior it ran with.
        when: "auto" makes no call for a single short answer, "never" for none.

    Raises:
        ModelError: the call failed.
    """
    steps = _steps(rollout)
    if when == "never" or (when == "auto" and len(steps) == 1 and len(steps[0].content) <= SHORT):
        return bare(rollout.trajectory.answer)
    return await asker.text(
        key,
        "summarize",
        task=task.input,
        steps=steps,
        experiences=experiences,
        grade=rollout.reward.value if asker.graded and rollout.reward is not None else None,
        truth=task.truth if asker.graded else None,
    )


def bare(answer: str) -> str:
    """An answer without its wrapping: the value of a JSON object that has just one."""
    try:
        value = parse_json_object(answer)
    except StructuredOutputError:
        return answer
    if isinstance(value, dict) and len(value) == 1:
        (content,) = value.values()
        return content if isinstance(content, str) else json.dumps(content)
    return answer


def _steps(rollout: Rollout) -> tuple[Message, ...]:
    """The messages of the attempt itself: everything after the question."""
    messages = rollout.trajectory.messages
    asked = next((number for number, message in enumerate(messages) if message.role == "user"), -1)
    return messages[asked + 1 :]
