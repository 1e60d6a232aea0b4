"""One step of Training-Free GRPO: rollouts, comparison, operations, the next library.

Step k makes v_k of v_{k-1}. All before its end reads the library that was there when it began, which is v_{k-1}
or, with `practice.max_staleness` = s, v_{k-1-s}; nothing of a step waits for another group before the end, the
only barrier, and only the end waits for step k-1. The step is a function of (these libraries, tasks, effects):
the same replies give the same v_k, whatever finished first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tfgrpo.distill import compare, propose, settle, summarize
from tfgrpo.engine.context import Context
from tfgrpo.engine.gate import Gate, Rewards, different
from tfgrpo.engine.group import run_group, usable
from tfgrpo.engine.records import GroupRecord, StepRecord, StoredLibrary, library_key
from tfgrpo.errors import DistillError, ModelError
from tfgrpo.events import GroupFinished, GroupStarted, StepFinished
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.tasks import gather_ordered
from tfgrpo.trust import screened
from tfgrpo.types import Fault, FaultKind, Group, Signal, Task


async def run_step(
    context: Context,
    gate: Gate,
    step: int,
    epoch: int,
    tasks: Sequence[Task],
    seen: ExperienceLibrary,
    newest: Callable[[], Awaitable[ExperienceLibrary]],
) -> ExperienceLibrary:
    """Practise on a batch of tasks and return the library that it leads to.

    Args:
        context: the open parts of the run.
        gate: decides which lessons and which library are kept.
        step: number of the step, from 1.
        epoch: number of the epoch, from 1.
        tasks: the batch.
        seen: v_{k-1-s}, which the step rolls out and compares with.
        newest: waits for v_{k-1}, to which the step's operations are applied.

    Returns:
        v_k; it equals v_{k-1} when nothing was learned or the gate refused what was.

    Raises:
        RunStoppedError, JournalError: the run cannot go on; `tfgrpo resume` continues at the next call.

    Cancellation: propagates; completed effects and closed groups are in the store.
    """
    this = Key("practice", step)
    assembler = await context.assembler(seen, tasks)
    prefix = context.step_prefix(assembler, tasks)
    rewards = Rewards(tasks)

    async def practise(task: Task) -> GroupRecord | None:
        key = this.of(task=task.id)
        context.hooks.emit(GroupStarted(key=key.text, parent=this.text, step=step, task_id=task.id))
        # 1. Rollouts: G attempts at the task with the library in the prompt, each graded.
        group = await run_group(
            context, key, task, assembler, prefix, graded_needed=context.method.graded_needed
        )
        rewards.put(group)
        context.hooks.emit(GroupFinished(key=key.text, parent=this.text, step=step, group=group))
        # A group that closed before the run was stopped stays as it is, faults included.
        record = await context.store.get("group", key, GroupRecord)
        if record is None:
            # 2. Signal: only a group whose rewards differ teaches.
            if teaches(context, group):
                record = await learn(context, gate, step, task, group, assembler, rewards)
            else:
                record = GroupRecord(step, task.id, group.signal, _rewards(group))
            await context.store.record("group", key, record, ends=Key("distill", step, task=task.id))
        return record if record.operations or record.dropped else None  # the others are in the store

    closed = await gather_ordered(tasks, practise, window=None if gate.waits else context.window)

    # The barrier: proposals in the order of (task, index), whatever finished first, meet the newest library.
    library = await newest()
    records = sorted((record for record in closed if record is not None), key=lambda record: record.task_id)
    proposed = [operation for record in records for operation in record.operations]
    dropped = tuple(drop for record in records for drop in record.dropped)
    passed = screened(context.screens, proposed, library)

    # 5b. Consolidation: the batch's proposals become one coherent set of operations.
    settled = await settle(
        context.asker, Key("consolidate", step), passed.kept, library, context.method.consolidate
    )

    # 6. Operations make libraries, and the gate says which of them is the next.
    libraries, reports = {"old": library}, {"old": library.apply(())[1]}
    for name, operations in settled.operations.items():
        libraries[name], reports[name] = library.apply(operations)
    chosen = await gate.library(context, step, different(libraries))
    learned, report = libraries[chosen.name], reports[chosen.name]
    await context.store.record(
        "library", library_key(learned.digest), StoredLibrary(learned.to_json().decode())
    )
    record = StepRecord(
        step=step,
        epoch=epoch,
        task_ids=tuple(task.id for task in tasks),
        chosen=chosen.name,
        report=report,
        dropped=(*dropped, *passed.dropped, *settled.dropped),
        version=learned.version,
        digest=learned.digest,
        gate=chosen.arms,
        fault=settled.fault,
    )
    await context.store.record("step", this, record, ends=Key("consolidate", step))
    context.hooks.emit(
        StepFinished(
            key=this.text,
            parent=Key("practice").text,
            step=step,
            report=report,
            accepted=chosen.name != "old",
            version=learned.version,
            entries=len(learned),
        )
    )
    return learned


async def learn(
    context: Context,
    gate: Gate,
    step: int,
    task: Task,
    group: Group,
    assembler: PromptAssembler,
    rewards: Rewards,
) -> GroupRecord:
    """From a mixed group to proposed operations; what breaks here is a fault and costs only this lesson."""
    method, asker, library = context.method, context.asker, assembler.library
    key, source = Key("distill", step, task=task.id), Key("practice", step, task=task.id).text
    graded = _rewards(group)
    try:
        # 3. Summaries: what each rollout did, step by step.
        comparable = [r for r in group.rollouts if usable(r, blind=not method.ground_truth)]
        texts = await gather_ordered(
            comparable,
            lambda rollout: summarize(
                asker,
                key.do("summary", f"{rollout.index:04d}"),
                task,
                rollout,
                assembler.prior.text,
                method.summaries,
            ),
            paid=True,
        )
        summaries = {rollout.index: text for rollout, text in zip(comparable, texts, strict=True)}

        # 4. Semantic advantage: in words, why the better rollouts won; E is in view.
        advantages = await compare(
            asker, key.do("advantage"), task, group, summaries, library, gate.candidates
        )
        advantage, gain = await gate.lesson(context, step, task, library, advantages, rewards)
        if advantage is None:
            return GroupRecord(step, task.id, group.signal, graded, gain=gain)

        # 5a. Operations: ADD, MODIFY, DELETE or KEEP, as the lesson asks for in view of E.
        proposals = await propose(asker, key.do("propose"), source, advantage, library, method.propose)
    except (DistillError, ModelError) as error:
        fault = Fault(FaultKind.DISTILLER, error.kind, error.message, error.retryable)
        return GroupRecord(step, task.id, group.signal, graded, fault=fault)
    return GroupRecord(
        step, task.id, group.signal, graded, advantage, proposals.operations, proposals.dropped, gain
    )


def teaches(context: Context, group: Group) -> bool:
    """A mixed group teaches; with G = 1, the paper's ablation, a rollout that is not right does."""
    if context.method.group_size == 1 and context.method.ground_truth:
        return any(rollout.reward is not None and rollout.reward.value < 1 for rollout in group.rollouts)
    return group.signal is Signal.MIXED


def _rewards(group: Group) -> tuple[float | None, ...]:
    return tuple(None if rollout.reward is None else rollout.reward.value for rollout in group.rollouts)
