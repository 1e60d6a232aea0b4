"""The G rollouts of one task: refilled when faults leave too few, closed without stragglers where there are more."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tfgrpo.dispatch.prefix import Convoy
from tfgrpo.dispatch.priority import Priority
from tfgrpo.engine.context import Context, each
from tfgrpo.engine.first_turn import FirstTurn
from tfgrpo.engine.records import GroupPlan, key_of, key_of_index, seed_of
from tfgrpo.events import RolloutFinished
from tfgrpo.library import PromptAssembler
from tfgrpo.rollout import Ask, Deadline, run_rollout
from tfgrpo.types import Choice, FaultKind, Group, ModelRequest, Role, Rollout, Signal, Task
from tfgrpo.verify.answer import final_answer, normalise


async def run_group(
    context: Context, key: str, task: Task, assembler: PromptAssembler, convoy: Convoy, *, graded_needed: int
) -> Group:
    """Run one practice group to its end (METHOD step 1) and say what it can teach (step 2).

    With `practice.oversample` the group starts more rollouts than it needs, where each is a request of its own,
    and closes when `group_size` are usable. What is then still under way is cut off: it has a terminal record,
    and no say. Learning starts when every planned attempt has its record, so a resumed group is the same group.

    Args:
        context: the open parts of the run.
        key: logical key of the group.
        task: the question.
        assembler: the prompt with the step's library.
        convoy: the prompts of the step.
        graded_needed: graded rollouts below which the group is refilled and, failing that, UNDERGRADED.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.

    Cancellation: propagates; finished rollouts are in the journal.
    """
    practice = context.config.practice
    blind = not practice.ground_truth
    rollouts: list[Rollout] = []
    missing = await planned(context, key)
    enough = practice.group_size if missing > practice.group_size else None
    for round_ in range(1 + practice.refills):
        rollouts += await run_rollouts(
            context,
            key,
            task,
            assembler,
            range(len(rollouts), len(rollouts) + missing),
            convoy,
            temperature=practice.temperature,
            priority=Priority.FINISH if round_ else Priority.START,
            enough=None if round_ else enough,
        )
        compared = sum(usable(rollout, blind=blind) for rollout in rollouts)
        if compared >= graded_needed:
            break
        missing = practice.group_size - compared
    field = context.config.verifier.field
    signal = signal_of(rollouts, graded_needed, blind=blind, field=field)
    return Group(task.id, tuple(rollouts), signal)


async def planned(context: Context, key: str) -> int:
    """How many attempts a group starts with: `group_size`, and `oversample` more if each is its own request.

    Whether it is may be learned in a run (an endpoint refuses group requests), so the plan is made durable.
    """
    practice = context.config.practice
    if not practice.oversample:
        return practice.group_size
    plan = context.journal.get("plan", key, GroupPlan)
    if plan is None:
        single = context.calls.group_limit(Role.ROLLOUT) == 1
        plan = GroupPlan(practice.group_size + (practice.oversample if single else 0))
        await context.journal.record("plan", key, plan)
    return plan.attempts


async def run_rollouts(
    context: Context,
    key: str,
    task: Task,
    assembler: PromptAssembler,
    indices: Sequence[int],
    convoy: Convoy,
    *,
    temperature: float,
    priority: Priority,
    enough: int | None = None,
) -> list[Rollout]:
    """Attempt a task once per index; each attempt ends in one terminal record in the journal.

    Args:
        context: the open parts of the run.
        key: logical key of the group.
        task: the question.
        assembler: the prompt.
        indices: which attempts.
        convoy: the prompts that begin as this one does.
        temperature: of every turn.
        priority: of the first calls; followers and later turns finish what is started.
        enough: how many usable rollouts close the group; the others are then cut off. None waits for all, and
            lets one request ask for several.

    Returns:
        The rollouts in the order of the indices; what the journal already holds is not run again.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.
    """
    messages = assembler.messages(task)
    prior = assembler.prior.library
    blind = not context.config.practice.ground_truth
    # Without ground truth a task may have no truth: its rollouts are compared, not graded.
    gradable = task.truth is not None or context.config.verifier.kind == "python"
    verifier = context.verifier if gradable else None
    first_turn = FirstTurn(
        context, key, task, indices, assembler, convoy, priority=priority, single=enough is not None
    )
    done: dict[int, Rollout] = {}
    for index in indices:
        known = context.journal.get("rollout", key_of_index(key, index), Rollout)
        if known is not None:
            done[index] = known
    replayed = frozenset(done)
    deadlines = {
        index: Deadline(context.config.limits.task_timeout) for index in indices if index not in done
    }

    def close() -> None:
        """Cut off what the group need not wait for."""
        if enough is not None and sum(usable(r, blind=blind) for r in done.values()) >= enough:
            for deadline in deadlines.values():
                deadline.cut()

    async def one(index: int) -> Rollout:
        if index not in done:
            deadline = deadlines[index]
            rollout_key = key_of_index(key, index)
            ask = _asking(context, rollout_key, index, first_turn, temperature, deadline)
            rollout = await run_rollout(task, index, prior, messages, context.agent, ask, verifier, deadline)
            await context.journal.record("rollout", rollout_key, rollout)
            done[index] = rollout
            close()
        rollout = done[index]
        context.hooks.emit(RolloutFinished(key.partition("/")[0], rollout, index in replayed))
        return rollout

    close()
    return await each(indices, one)


def signal_of(
    rollouts: Sequence[Rollout], graded_needed: int, *, blind: bool, field: str | None = None
) -> Signal:
    """MIXED where rewards differ, or, without ground truth, where answers differ; a fault is no reward."""
    compared = [rollout for rollout in rollouts if usable(rollout, blind=blind)]
    if len(compared) < graded_needed:
        return Signal.UNDERGRADED
    if blind:
        marks: set[object] = {answer_of(rollout, field) for rollout in compared}
    else:
        marks = {rollout.reward.value for rollout in compared if rollout.reward is not None}
    return Signal.MIXED if len(marks) > 1 else Signal.UNIFORM


def answer_of(rollout: Rollout, field: str | None) -> str:
    """The final answer as groups are compared by it without ground truth; no verifier has a say in it."""
    reply = rollout.trajectory.answer
    return normalise(final_answer(reply, field) or reply)


def usable(rollout: Rollout, *, blind: bool) -> bool:
    """Whether a rollout can be compared: it is graded or, without ground truth, it has an answer at all."""
    if blind:
        return rollout.fault is None or rollout.fault.kind is FaultKind.VERIFIER
    return rollout.reward is not None


def _asking(
    context: Context,
    rollout_key: str,
    index: int,
    first_turn: FirstTurn,
    temperature: float,
    deadline: Deadline,
) -> Ask:
    """How one rollout asks: its first turn with its group, every later turn by itself."""
    turn = 0
    seed = context.config.run.seed

    async def ask(request: ModelRequest) -> Choice:
        nonlocal turn
        request = msgspec.structs.replace(request, temperature=temperature)
        turn += 1
        if turn == 1:
            return await first_turn.choice(index, request, seed, deadline)
        key = f"{rollout_key}/{key_of(turn)}"
        asked = msgspec.structs.replace(request, seed=seed_of(seed, key))
        reply = await context.calls.complete(
            key,
            Role.ROLLOUT,
            asked,
            priority=Priority.FINISH,
            on_launch=deadline.start,
            on_limited=deadline.pause,
            abandoned=lambda: deadline.error,
        )
        return reply.choices[0]

    return ask
