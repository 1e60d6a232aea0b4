"""One step of Training-Free GRPO: rollouts, comparison, operations, the next library.

Step k makes v_k of v_{k-1}. All before its end reads the library that was there when it began, which is v_{k-1}
or, with `practice.max_staleness` = s, v_{k-1-s}; nothing of a step waits for another group before the end, the
only barrier, and only the end waits for step k-1. The step is a function of (these libraries, tasks, model
replies): the same replies give the same v_k, whatever finished first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from tfgrpo.distill import compare, consolidate, propose, summarize
from tfgrpo.engine.context import Context, each
from tfgrpo.engine.gate import Rewards, choose_lesson, choose_library
from tfgrpo.engine.group import run_group, usable
from tfgrpo.engine.records import GroupRecord, StepRecord, StoredLibrary, key_of
from tfgrpo.errors import DistillError, ModelError
from tfgrpo.events import GroupFinished, StepFinished
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.types import DroppedOperation, Fault, FaultKind, Group, Operation, Signal, Task


async def run_step(
    context: Context,
    step: int,
    epoch: int,
    tasks: Sequence[Task],
    seen: ExperienceLibrary,
    newest: Callable[[], Awaitable[ExperienceLibrary]],
) -> ExperienceLibrary:
    """Practise on a batch of tasks and return the library that it leads to.

    Args:
        context: the open parts of the run.
        step: number of the step, from 1.
        epoch: number of the epoch, from 1.
        tasks: the batch.
        seen: v_{k-1-s}, which the step rolls out and compares with.
        newest: waits for v_{k-1}, to which the step's operations are applied.

    Returns:
        v_k; it equals v_{k-1} when nothing was learned or the gate refused what was.

    Raises:
        RunStoppedError, JournalError: the run cannot go on; `tfgrpo resume` continues at the next call.

    Cancellation: propagates; completed calls and closed groups are in the journal.
    """
    assembler = context.assembler(seen, tasks)
    convoy = context.convoy(assembler, tasks)
    rewards = Rewards(tasks)

    async def practise(task: Task) -> GroupRecord:
        # 1. Rollouts: G attempts at the task with the library in the prompt, each graded.
        group = await run_group(
            context,
            key_of("practice", step, task.id),
            task,
            assembler,
            convoy,
            graded_needed=context.config.practice.graded_needed,
        )
        rewards.put(group)
        context.hooks.emit(GroupFinished(step, group))
        # A group that closed before the run was stopped stays as it is, faults included.
        record = context.journal.get("group", key_of(step, task.id), GroupRecord)
        if record is not None:
            return record
        # 2. Signal: only a group whose rewards differ teaches.
        if teaches(context, group):
            record = await learn(context, step, task, group, assembler, rewards)
        else:
            record = GroupRecord(step, task.id, group.signal, _rewards(group))
        await context.journal.record("group", key_of(step, task.id), record)
        return record

    records = await each(tasks, practise)

    # The barrier: proposals in the order of (task, index), whatever finished first, meet the newest library.
    library = await newest()
    records.sort(key=lambda record: record.task_id)
    proposals, overtaken = still_valid(
        (operation for record in records for operation in record.operations), library
    )
    dropped = (*(drop for record in records for drop in record.dropped), *overtaken)

    # 5b. Consolidation: the batch's proposals become one coherent set of operations.
    libraries = {"old": library}
    reports = {"old": library.apply(())[1]}
    fault: Fault | None = None
    if proposals:
        libraries["proposed"], reports["proposed"] = library.apply(proposals)
    if len(proposals) > 1 and context.config.practice.consolidate != "none":
        try:
            settled = await consolidate(
                context.asker,
                key_of("consolidate", step),
                proposals,
                library,
                context.config.practice.consolidate,
            )
            libraries["consolidated"], reports["consolidated"] = library.apply(settled.operations)
            dropped += settled.dropped
        except (DistillError, ModelError) as error:
            fault = Fault(FaultKind.DISTILLER, error.kind, error.message)

    # 6. The next library; with select = "gain" it must not lose on re-run practice tasks.
    chosen, gate = await choose_library(context, step, libraries)
    learned, report = libraries[chosen], reports[chosen]
    await context.journal.record("library", learned.digest, StoredLibrary(learned.to_json().decode()))
    record = StepRecord(
        step=step,
        epoch=epoch,
        task_ids=tuple(task.id for task in tasks),
        chosen=chosen,
        report=report,
        dropped=dropped,
        version=learned.version,
        digest=learned.digest,
        gate=gate,
        fault=fault,
    )
    await context.journal.record("step", key_of(step), record)
    context.hooks.emit(StepFinished(step, report, chosen != "old", learned.version, len(learned)))
    return learned


async def learn(
    context: Context, step: int, task: Task, group: Group, assembler: PromptAssembler, rewards: Rewards
) -> GroupRecord:
    """From a mixed group to proposed operations; what breaks here is a fault and costs only this lesson."""
    practice = context.config.practice
    library = assembler.library
    key = key_of("distill", step, task.id)
    record = GroupRecord(step, task.id, group.signal, _rewards(group))
    try:
        # 3. Summaries: what each rollout did, step by step.
        comparable = [r for r in group.rollouts if usable(r, blind=not practice.ground_truth)]
        texts = await each(
            comparable,
            lambda rollout: summarize(
                context.asker,
                f"{key}/summary/{key_of(rollout.index)}",
                task,
                rollout,
                assembler.prior.text,
                practice.summaries,
            ),
            paid=True,
        )
        summaries = {rollout.index: text for rollout, text in zip(comparable, texts, strict=True)}

        # 4. Semantic advantage: in words, why the better rollouts won; E is in view.
        candidates = practice.candidates if practice.select == "gain" else 1
        advantages = await compare(
            context.asker, f"{key}/advantage", task, group, summaries, library, candidates
        )
        advantage, gain = await choose_lesson(context, step, task, library, advantages, rewards)
        if advantage is None:
            return GroupRecord(step, task.id, group.signal, record.rewards, gain=gain)

        # 5a. Operations: ADD, MODIFY, DELETE or KEEP, as the lesson asks for in view of E.
        proposals = await propose(context.asker, f"{key}/propose", advantage, library, practice.propose)
    except (DistillError, ModelError) as error:
        fault = Fault(FaultKind.DISTILLER, error.kind, error.message, error.retryable)
        return GroupRecord(step, task.id, group.signal, record.rewards, fault=fault)
    return GroupRecord(
        step, task.id, group.signal, record.rewards, advantage, proposals.operations, proposals.dropped, gain
    )


def still_valid(
    proposals: Iterable[Operation], library: ExperienceLibrary
) -> tuple[tuple[Operation, ...], tuple[DroppedOperation, ...]]:
    """Proposals that the newest library can still take, and the others with the reason it gives.

    Only what was proposed for an earlier version is tried, each by itself: its target may have been deleted or
    rewritten meanwhile, or its text been learned by another step. Consolidation must not revive it: it would
    propose it as made for the newest version.
    """
    valid: list[Operation] = []
    dropped: list[DroppedOperation] = []
    for operation in proposals:
        refused = library.apply((operation,))[1].dropped if operation.base_version < library.version else ()
        dropped += refused
        if not refused:
            valid.append(operation)
    return tuple(valid), tuple(dropped)


def teaches(context: Context, group: Group) -> bool:
    """A mixed group teaches; with G = 1, the paper's ablation, a rollout that is not right does."""
    if context.config.practice.group_size == 1 and context.config.practice.ground_truth:
        return any(rollout.reward is not None and rollout.reward.value < 1 for rollout in group.rollouts)
    return group.signal is Signal.MIXED


def _rewards(group: Group) -> tuple[float | None, ...]:
    return tuple(None if rollout.reward is None else rollout.reward.value for rollout in group.rollouts)
