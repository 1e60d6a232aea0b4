"""Evaluation: k answers to every held-out task, with or without a library. Never used for learning."""

from __future__ import annotations

from collections.abc import Sequence

from tfgrpo.dispatch.priority import Priority
from tfgrpo.engine.context import Context, each
from tfgrpo.engine.group import run_rollouts
from tfgrpo.engine.records import key_of, key_of_index
from tfgrpo.events import PhaseStarted
from tfgrpo.journal import JournalReader
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import Rollout, Struct, Task


class EvaluationRecord(Struct, frozen=True):
    """A finished evaluation: how many rollouts each task has, in the order of the data."""

    rollouts: dict[str, int]


class Evaluation(Struct, frozen=True):
    """The rollouts of one evaluation by task id, in the order of the data."""

    phase: str
    rollouts: dict[str, tuple[Rollout, ...]]

    def rewards(self) -> dict[str, list[float]]:
        """The rewards by task; an ungraded rollout has none, so a list may be short or empty."""
        return {
            task_id: [rollout.reward.value for rollout in rollouts if rollout.reward is not None]
            for task_id, rollouts in self.rollouts.items()
        }


async def run_evaluation(
    context: Context, phase: str, tasks: Sequence[Task], library: ExperienceLibrary
) -> Evaluation:
    """Answer every task `evaluation.samples` times at the evaluation temperature.

    A faulted sample is run once more under a new index; what stays ungraded is reported, never counted as 0.

    Args:
        context: the open parts of the run.
        phase: the first part of the logical keys: "baseline" or "learned".
        tasks: the held-out tasks.
        library: the token prior; an empty one is the baseline.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.

    Cancellation: propagates; finished rollouts are in the journal.
    """
    settings = context.config.evaluation
    assembler = context.assembler(library, tasks)
    convoy = context.convoy(assembler, tasks)
    context.hooks.emit(PhaseStarted(phase, len(tasks), len(tasks) * settings.samples))

    async def one(task: Task) -> tuple[Rollout, ...]:
        async def run(indices: Sequence[int], priority: Priority) -> list[Rollout]:
            return await run_rollouts(
                context,
                key_of(phase, task.id),
                task,
                assembler,
                indices,
                convoy,
                temperature=settings.temperature,
                priority=priority,
            )

        rollouts = await run(range(settings.samples), Priority.START)
        faulted = sum(rollout.reward is None for rollout in rollouts)
        if faulted:
            rollouts += await run(range(settings.samples, settings.samples + faulted), Priority.FINISH)
        return tuple(rollouts)

    results = await each(tasks, one)
    counts = {task.id: len(rollouts) for task, rollouts in zip(tasks, results, strict=True)}
    await context.journal.record("evaluation", key_of(phase), EvaluationRecord(counts))
    return Evaluation(phase, {task.id: rollouts for task, rollouts in zip(tasks, results, strict=True)})


def stored_evaluation(reader: JournalReader, phase: str) -> Evaluation | None:
    """A finished evaluation from the journal; None while it is not finished."""
    record = reader.get("evaluation", key_of(phase), EvaluationRecord)
    if record is None:
        return None
    rollouts = reader.records("rollout", Rollout, prefix=f"{key_of(phase)}/")
    return Evaluation(
        phase,
        {
            task_id: tuple(rollouts[key_of_index(key_of(phase, task_id), index)] for index in range(count))
            for task_id, count in record.rollouts.items()
        },
    )
