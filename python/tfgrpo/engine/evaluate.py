"""Evaluation: k answers to every held-out task under each of several arms. Never used for learning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tfgrpo.dispatch import PrefixGroup, Priority
from tfgrpo.engine.context import Context
from tfgrpo.engine.group import run_rollouts
from tfgrpo.engine.plan import evaluation
from tfgrpo.engine.records import EvaluationRecord
from tfgrpo.errors import UnmeasuredError
from tfgrpo.events import PhaseFinished, PhaseStarted
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.tasks import gather_ordered
from tfgrpo.types import Rollout, Struct, Task


class Arm(Struct, frozen=True):
    """A way of answering held-out tasks: its name, which begins its keys, and the library in its prompts."""

    name: str
    library: ExperienceLibrary


class Tally:
    """Counts of one arm: graded answers, and what became of the others with the first message of each kind."""

    def __init__(self) -> None:
        self.graded = 0
        self.faults: Counter[tuple[str, str]] = Counter()
        self._messages: dict[tuple[str, str], str] = {}

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Count some rollouts."""
        for rollout in rollouts:
            self.graded += rollout.reward is not None
            if rollout.fault is not None:
                name = rollout.fault.kind.value, rollout.fault.error
                self.faults[name] += 1
                self._messages.setdefault(name, rollout.fault.message)

    def check(self, arm: str) -> None:
        """See whether there is anything to measure by.

        Raises:
            UnmeasuredError: nothing was graded.
        """
        if self.graded or not self.faults:
            return
        ((kind, error), count), total = self.faults.most_common(1)[0], self.faults.total()
        raise UnmeasuredError(
            f"Nothing could be measured: {total:,} of {total:,} attempts of the arm {arm!r} ended in a fault, "
            f"{count:,} of them {error} ({kind}): {self._messages[kind, error]} Mend that and start a new run."
        )


async def run_evaluation(context: Context, arms: Sequence[Arm], tasks: Sequence[Task]) -> None:
    """Answer every task `samples` times under every arm, all at once; arms that the store holds are done.

    A faulted sample is run once more under a new index; what stays ungraded is reported, never counted as 0. The
    rollouts are in the store; no more than those under way are kept in memory.

    Args:
        context: the open parts of the run.
        arms: with different names.
        tasks: the held-out tasks.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.
        UnmeasuredError: nothing could be graded under an arm.

    Cancellation: propagates; finished rollouts are in the store.
    """
    samples = context.method.samples
    prompts: dict[str, tuple[PromptAssembler, PrefixGroup]] = {}
    tallies = {arm.name: Tally() for arm in arms}
    for arm in arms:
        assembler = await context.assembler(arm.library, tasks)
        prompts[arm.name] = assembler, context.step_prefix(assembler, tasks)
        rollouts = evaluation(context.method, arm.name, tasks).attempts
        context.hooks.emit(
            PhaseStarted(key=Key(arm.name).text, phase=arm.name, tasks=len(tasks), rollouts=rollouts)
        )

    async def one(work: tuple[Task, Arm]) -> int:
        task, arm = work
        assembler, prefix = prompts[arm.name]

        async def run(indices: Sequence[int], priority: Priority) -> int:
            rollouts = await run_rollouts(
                context,
                Key(arm.name, task=task.id),
                task,
                assembler,
                indices,
                prefix,
                temperature=context.method.evaluation_temperature,
                priority=priority,
            )
            tallies[arm.name].add(rollouts)
            return sum(rollout.reward is None for rollout in rollouts)

        faulted = await run(range(samples), Priority.START)
        if faulted:
            await run(range(samples, samples + faulted), Priority.FINISH)
        return samples + faulted

    counts = await gather_ordered(((task, arm) for task in tasks for arm in arms), one, window=context.window)
    for number, arm in enumerate(arms):
        own = {task.id: count for task, count in zip(tasks, counts[number :: len(arms)], strict=True)}
        await context.store.record("evaluation", Key(arm.name), EvaluationRecord(own))
        usage = context.dispatcher.budget.spent
        context.hooks.emit(PhaseFinished(key=Key(arm.name).text, phase=arm.name, usage=usage))
        tallies[arm.name].check(arm.name)
