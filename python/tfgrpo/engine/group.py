"""The G rollouts of one task: refilled when faults leave too few, closed without stragglers where there are more."""

from __future__ import annotations

from collections.abc import Sequence

from tfgrpo.dispatch import PrefixGroup, Priority, Sharing
from tfgrpo.engine.context import Context
from tfgrpo.engine.records import GroupPlan
from tfgrpo.events import RolloutFinished, RolloutStarted
from tfgrpo.keys import Key
from tfgrpo.library import PromptAssembler
from tfgrpo.protocols import Verifier
from tfgrpo.rollout import AttemptScope, Deadline, run_attempt
from tfgrpo.tasks import gather_ordered
from tfgrpo.types import FaultKind, Group, Role, Rollout, Signal, Task
from tfgrpo.verify.answer import final_answer, normalise

#: Rewards that differ by no more than rounding are the same reward.
SAME_REWARD = 1e-6


async def run_group(
    context: Context,
    key: Key,
    task: Task,
    assembler: PromptAssembler,
    prefix: PrefixGroup,
    *,
    graded_needed: int,
) -> Group:
    """Run one practice group to its end (METHOD step 1) and say what it can teach (step 2).

    With `oversample` the group starts more rollouts than it needs, where each is a request of its own, and closes
    when `group_size` are usable. What is then still under way is cut off: it has a terminal record, and no say.
    Learning starts when every planned attempt has its record, so a resumed group is the same group.

    Args:
        context: the open parts of the run.
        key: of the group.
        task: the question.
        assembler: the prompt with the step's library.
        prefix: the prompts of the step.
        graded_needed: graded rollouts below which the group is refilled and, failing that, UNDERGRADED.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.

    Cancellation: propagates; finished rollouts are in the store.
    """
    method = context.method
    blind = not method.ground_truth
    rollouts: list[Rollout] = []
    missing = await planned(context, key)
    enough = method.group_size if missing > method.group_size else None
    for round_ in range(1 + method.refills):
        rollouts += await run_rollouts(
            context,
            key,
            task,
            assembler,
            range(len(rollouts), len(rollouts) + missing),
            prefix,
            temperature=method.temperature,
            priority=Priority.FINISH if round_ else Priority.START,
            enough=None if round_ else enough,
        )
        compared = sum(usable(rollout, blind=blind) for rollout in rollouts)
        if compared >= graded_needed:
            break
        missing = method.group_size - compared
    signal = signal_of(rollouts, graded_needed, blind=blind, field=method.field)
    return Group(task.id, tuple(rollouts), signal)


async def planned(context: Context, key: Key) -> int:
    """How many attempts a group starts with: `group_size`, and `oversample` more if each is its own request.

    Whether it is may be learned in a run (an endpoint refuses group requests), so the plan is made durable.
    """
    method = context.method
    if not method.oversample:
        return method.group_size
    plan = await context.store.get("plan", key, GroupPlan)
    if plan is None:
        single = context.dispatcher.group_limit(Role.ROLLOUT) == 1
        plan = GroupPlan(method.group_size + (method.oversample if single else 0))
        await context.store.record("plan", key, plan)
    return plan.attempts


async def run_rollouts(
    context: Context,
    key: Key,
    task: Task,
    assembler: PromptAssembler,
    indices: Sequence[int],
    prefix: PrefixGroup,
    *,
    temperature: float,
    priority: Priority,
    enough: int | None = None,
) -> list[Rollout]:
    """Attempt a task once per index; each attempt ends in one terminal record in the store.

    Args:
        context: the open parts of the run.
        key: of the group.
        task: the question.
        assembler: the prompt.
        indices: which attempts.
        prefix: the prompts that begin as this one does.
        temperature: of requests that name none.
        priority: of the first calls; followers and later turns finish what is started.
        enough: how many usable rollouts close the group; the others are then cut off. None waits for all, and
            lets one request ask for several.

    Returns:
        The rollouts in the order of the indices; what the store already holds is not run again.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.
    """
    blind = not context.method.ground_truth
    done: dict[int, Rollout] = {}
    for index in indices:
        known = await context.store.get("rollout", key.of(index=index), Rollout)
        if known is not None:
            done[index] = known
            context.hooks.emit(finished(key.of(index=index), known, replayed=True))
    deadlines = {index: Deadline(context.limits.seconds) for index in indices if index not in done}
    if not deadlines:
        return [done[index] for index in indices]
    prompt = assembler.assemble(task)
    sharing = Sharing(
        context.dispatcher,
        cache=context.cache,
        step=prefix,
        prompt=sum(segment.tokens for segment in prompt.segments),
        members=len(deadlines),
        priority=priority,
        single=enough is not None,
    )
    verifier = verifier_for(context, task)

    def close() -> None:
        """Cut off what the group need not wait for."""
        if enough is not None and sum(usable(r, blind=blind) for r in done.values()) >= enough:
            for deadline in deadlines.values():
                deadline.cut()

    async def one(index: int) -> Rollout:
        if index in done:
            return done[index]
        own = key.of(index=index)
        if context.hooks.wants(RolloutStarted):
            context.hooks.emit(
                RolloutStarted(key=own.text, parent=key.text, phase=key.phase, task_id=task.id, index=index)
            )
        scope = AttemptScope(
            own,
            task,
            assembler.prior,
            prompt.messages,
            context.dispatcher,
            temperature=temperature,
            deadline=deadlines[index],
            limits=context.limits,
            tools=context.tools,
            sharing=sharing,
        )
        rollout = await run_attempt(scope, context.agent, verifier)
        await context.store.record("rollout", own, rollout)
        done[index] = rollout
        close()
        context.hooks.emit(finished(own, rollout))
        return rollout

    close()
    return await gather_ordered(indices, one)


def verifier_for(context: Context, task: Task) -> Verifier | None:
    """The verifier, or None where it compares with a truth that the task does not have.

    Without ground truth rollouts are compared, not graded.
    """
    needs_truth = bool(getattr(context.verifier, "needs_truth", False))
    return context.verifier if task.truth is not None or not needs_truth else None


def finished(key: Key, rollout: Rollout, *, replayed: bool = False) -> RolloutFinished:
    """The event that ends an attempt's span."""
    return RolloutFinished(
        key=key.text, parent=key.group.text, phase=key.phase, rollout=rollout, replayed=replayed
    )


def signal_of(
    rollouts: Sequence[Rollout], graded_needed: int, *, blind: bool, field: str | None = None
) -> Signal:
    """MIXED where rewards differ, or, without ground truth, where answers differ; a fault is no reward."""
    compared = [rollout for rollout in rollouts if usable(rollout, blind=blind)]
    if len(compared) < graded_needed:
        return Signal.UNDERGRADED
    if blind:
        differ = len({answer_of(rollout, field) for rollout in compared}) > 1
    else:
        rewards = [rollout.reward.value for rollout in compared if rollout.reward is not None]
        differ = max(rewards) - min(rewards) > SAME_REWARD
    return Signal.MIXED if differ else Signal.UNIFORM


def answer_of(rollout: Rollout, field: str | None) -> str:
    """The final answer as groups are compared by it without ground truth; no verifier has a say in it."""
    reply = rollout.trajectory.answer
    return normalise(final_answer(reply, field) or reply)


def usable(rollout: Rollout, *, blind: bool) -> bool:
    """Whether a rollout can be compared: it is graded or, without ground truth, it has an answer at all."""
    if blind:
        told = rollout.fault is None or rollout.fault.kind is FaultKind.VERIFIER
        return told and not rollout.cut_off
    return rollout.reward is not None
