"""The semantic advantage: in words, why the better rollouts of one group won (METHOD step 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfgrpo.distill.ask import Asker
from tfgrpo.distill.parse import read_lesson
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import Group, Rollout, SemanticAdvantage, Task


async def compare(
    asker: Asker,
    key: Key,
    task: Task,
    group: Group,
    summaries: Mapping[int, str],
    library: ExperienceLibrary,
    candidates: int = 1,
) -> list[SemanticAdvantage]:
    """Compare the rollouts of a group; without ground truth neither rewards nor truth are shown.

    Args:
        asker: asks the distiller.
        key: of the call.
        task: the question.
        group: its rollouts.
        summaries: by rollout index; only these rollouts are compared.
        library: E; what of it is near the question is in view.
        candidates: how many wordings to ask for.

    Returns:
        One to `candidates` different advantages, each stating one lesson.

    Raises:
        DistillError: no reply could be read.
        ModelError: a call failed.
    """
    compared = [rollout for rollout in group.rollouts if rollout.index in summaries]
    if asker.graded:
        compared.sort(key=lambda rollout: -_reward(rollout))
    attempts = [
        {"text": summaries[rollout.index], "mark": mark(_reward(rollout)) if asker.graded else ""}
        for rollout in compared
    ]
    lessons = await asker.structured(
        key,
        "advantage",
        lesson_schema(asker.words),
        lambda value: read_lesson(value, asker.words),
        n=candidates,
        task=task.input,
        attempts=attempts,
        truth=task.truth if asker.graded else None,
        experiences=asker.near(library, [task.input]),
    )
    return [SemanticAdvantage(task.id, text, tuple(summaries)) for text in dict.fromkeys(lessons)]


def mark(reward: float) -> str:
    """A grade in a word, or a number where no word fits."""
    return "RIGHT" if reward >= 1 else "WRONG" if reward <= 0 else f"GRADE {reward:.2f}"


def _reward(rollout: Rollout) -> float:
    return rollout.reward.value if rollout.reward is not None else 0.0


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
