"""The G rollouts of one task: one request for their common first turn, refilled when faults leave too few."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgspec

from tfgrpo.engine.calls import Calls
from tfgrpo.engine.context import Context, each
from tfgrpo.engine.records import key_of, seed_of
from tfgrpo.errors import ModelError
from tfgrpo.events import RolloutFinished
from tfgrpo.library import PromptAssembler
from tfgrpo.models import GroupRequestUnsupportedError
from tfgrpo.rollout import Ask, run_rollout
from tfgrpo.types import Choice, FaultKind, Group, ModelReply, ModelRequest, Role, Rollout, Signal, Task
from tfgrpo.verify.answer import final_answer, normalise


async def run_group(
    context: Context, key: str, task: Task, assembler: PromptAssembler, *, graded_needed: int
) -> Group:
    """Run one practice group to its end (METHOD step 1) and say what it can teach (step 2).

    Args:
        context: the open parts of the run.
        key: logical key of the group.
        task: the question.
        assembler: the prompt with the step's library.
        graded_needed: graded rollouts below which the group is refilled and, failing that, UNDERGRADED.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.

    Cancellation: propagates; finished rollouts are in the journal.
    """
    practice = context.config.practice
    blind = not practice.ground_truth
    rollouts: list[Rollout] = []
    missing = practice.group_size
    for _ in range(1 + practice.refills):
        rollouts += await run_rollouts(
            context,
            key,
            task,
            assembler,
            range(len(rollouts), len(rollouts) + missing),
            temperature=practice.temperature,
        )
        compared = sum(usable(rollout, blind=blind) for rollout in rollouts)
        if compared >= graded_needed:
            break
        missing = practice.group_size - compared
    field = context.config.verifier.field
    signal = signal_of(rollouts, graded_needed, blind=blind, field=field)
    return Group(task.id, tuple(rollouts), signal)


async def run_rollouts(
    context: Context,
    key: str,
    task: Task,
    assembler: PromptAssembler,
    indices: Sequence[int],
    *,
    temperature: float,
) -> list[Rollout]:
    """Attempt a task once per index; each attempt ends in one terminal record in the journal.

    Returns:
        The rollouts in the order of the indices; what the journal already holds is not run again.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.
    """
    messages = assembler.messages(task)
    prior = assembler.prior.library
    first_turn = FirstTurn(context.calls, key, indices)
    # Without ground truth a task may have no truth: its rollouts are compared, not graded.
    gradable = task.truth is not None or context.config.verifier.kind == "python"

    async def one(index: int) -> Rollout:
        rollout_key = key_of_index(key, index)
        rollout = context.journal.get("rollout", rollout_key, Rollout)
        replayed = rollout is not None
        if rollout is None:
            ask = _asking(context, rollout_key, index, first_turn, temperature)
            verifier = context.verifier if gradable else None
            rollout = await run_rollout(task, index, prior, messages, context.agent, ask, verifier)
            await context.journal.record("rollout", rollout_key, rollout)
        context.hooks.emit(RolloutFinished(key.partition("/")[0], rollout, replayed))
        return rollout

    return await each(indices, one)


class FirstTurn:
    """The common first turn of a block of rollouts, asked in as few requests as the endpoint permits."""

    def __init__(self, calls: Calls, key: str, indices: Sequence[int]) -> None:
        self._calls = calls
        self._key = key
        self._first = indices[0] if indices else 0
        self._count = len(indices)
        self._locks: dict[str, anyio.Lock] = {}
        self._outcomes: dict[str, ModelReply | ModelError] = {}

    async def choice(self, index: int, request: ModelRequest, seed: int) -> Choice:
        """The answer of one rollout; the first rollout of a chunk to ask makes the request for all of it.

        Raises:
            ModelError: the shared call failed; every rollout of the chunk gets the same error.
        """
        while True:
            limit = self._calls.group_limit(Role.ROLLOUT)
            size = min(limit or self._count, self._count)
            start = self._first + (index - self._first) // size * size
            count = min(size, self._first + self._count - start)
            try:
                reply = await self._shared(start, count, request, seed)
            except GroupRequestUnsupportedError:
                if self._calls.group_limit(Role.ROLLOUT) == limit:
                    raise
                continue  # the endpoint has just told its limit: ask again within it
            return reply.choices[index - start]

    async def _shared(self, start: int, count: int, request: ModelRequest, seed: int) -> ModelReply:
        key = f"{key_of_index(self._key, start)}x{count}"
        async with self._locks.setdefault(key, anyio.Lock()):
            outcome = self._outcomes.get(key)
            if outcome is None:
                asked = msgspec.structs.replace(request, n=count, seed=seed_of(seed, key))
                try:
                    outcome = await self._calls.complete(key, Role.ROLLOUT, asked)
                except ModelError as error:
                    outcome = error
                self._outcomes[key] = outcome
        if isinstance(outcome, ModelError):
            raise outcome
        return outcome


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


def key_of_index(key: str, index: int) -> str:
    """The logical key of one rollout of a group."""
    return f"{key}/{key_of(index)}"


def usable(rollout: Rollout, *, blind: bool) -> bool:
    """Whether a rollout can be compared: it is graded or, without ground truth, it has an answer at all."""
    if blind:
        return rollout.fault is None or rollout.fault.kind is FaultKind.VERIFIER
    return rollout.reward is not None


def _asking(context: Context, rollout_key: str, index: int, first_turn: FirstTurn, temperature: float) -> Ask:
    """How one rollout asks: its first turn with its group, every later turn by itself."""
    turn = 0
    seed = context.config.run.seed

    async def ask(request: ModelRequest) -> Choice:
        nonlocal turn
        request = msgspec.structs.replace(request, temperature=temperature)
        turn += 1
        if turn == 1:
            return await first_turn.choice(index, request, seed)
        key = f"{rollout_key}/{key_of(turn)}"
        asked = msgspec.structs.replace(request, seed=seed_of(seed, key))
        # Turns that finish a rollout go before turns that start one.
        return (await context.calls.complete(key, Role.ROLLOUT, asked, priority=-1)).choices[0]

    return ask
