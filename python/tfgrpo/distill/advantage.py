"""The semantic advantage: in words, why the better rollouts of one group won (METHOD step 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfgrpo.distill.ask import Asker
from tfgrpo.distill.parse import read_lesson
from tfgrpo.types import Group, SemanticAdvantage, Task


async def compare(
    asker: Asker,
    key: str,
    task: Task,
    group: Group,
    summaries: Mapping[int, str],
    experiences: str,
    candidates: int = 1,
) -> list[SemanticAdvantage]:
    """Compare the rollouts of a group; without ground truth neither rewards nor truth are shown.

    Args:
        asker: asks the distiller.
        key: logical key of the call.
        task: the question.
        group: its rollouts.
        summaries: by rollout index; only these rollouts are compared.
        experiences: the library as prompts show it; E is in view.
        candidates: how many wordings to ask for.

    Returns:
        One to `candidates` different advantages, each stating one lesson.

    Raises:
        DistillError: no reply could be read.
        ModelError: a call failed.
    """
    attempts = []
    for rollout in group.rollouts:
        if rollout.index in summaries:
            reward = rollout.reward.value if asker.graded and rollout.reward is not None else None
            attempts.append({"text": summaries[rollout.index], "reward": reward})
    if asker.graded:
        attempts.sort(key=lambda attempt: -float(attempt["reward"] or 0.0))
    lessons = await asker.structured(
        key,
        "advantage",
        lesson_schema(asker.words),
        lambda value: read_lesson(value, asker.words),
        n=candidates,
        task=task.input,
        attempts=attempts,
        truth=task.truth if asker.graded else None,
        experiences=experiences,
    )
    return [SemanticAdvantage(task.id, text, tuple(summaries)) for text in dict.fromkeys(lessons)]


def lesson_schema(words: int) -> dict[str, Any]:
    """The JSON schema of a lesson; lengths are bounded: a constrained small model fills what it may."""
    characters = words * 5
    return {
        "type": "object",
        "properties": {
            "when": {"type": "string", "minLength": 3, "maxLength": characters * 2 // 3},
            "do": {"type": "string", "minLength": 3, "maxLength": characters // 3},
        },
        "required": ["when", "do"],
        "additionalProperties": False,
    }
