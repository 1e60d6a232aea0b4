"""One attempt becomes one terminal Rollout: completed, truncated or faulted; a fault is never a reward."""

from __future__ import annotations

import time
from collections.abc import Callable

from tfgrpo.errors import FATAL_ERRORS, ModelError, ToolError, VerifierError
from tfgrpo.rollout.agent import Agent, Ask
from tfgrpo.rollout.deadline import Deadline
from tfgrpo.types import (
    Ending,
    Fault,
    FaultKind,
    Message,
    PriorRef,
    Reward,
    Rollout,
    Task,
    Trajectory,
)
from tfgrpo.verify import Verifier


async def run_rollout(
    task: Task,
    index: int,
    prior: PriorRef,
    messages: tuple[Message, ...],
    agent: Agent,
    ask: Ask,
    verifier: Verifier | None,
    deadline: Deadline,
    clock: Callable[[], float] = time.time,
) -> Rollout:
    """Attempt a task once and grade the attempt.

    Args:
        task: the question.
        index: the place of this attempt in its group.
        prior: which token prior `messages` carries.
        messages: the assembled prompt.
        agent: who attempts.
        ask: asks the model on behalf of this attempt.
        verifier: grades the trajectory; None leaves the rollout without a reward.
        deadline: bounds the attempt; it may also be cut off there.
        clock: wall time in seconds for the record.

    Returns:
        The terminal record. What the agent or the verifier broke stands in `fault`.

    Raises:
        TfgrpoError: only what has to stop the run (see `errors.FATAL_ERRORS` and the halting of calls).

    Cancellation: propagates; no record is made.
    """
    started = clock()
    trajectory = Trajectory(messages)
    reward: Reward | None = None
    try:
        with deadline:
            attempt = await agent.attempt(messages, ask)
            deadline.lift()
            trajectory = attempt.trajectory
            ending = Ending.TRUNCATED if attempt.truncated else Ending.COMPLETED
            if verifier is not None:
                reward = await verifier.verify(task, trajectory)
        fault = None
    except FATAL_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001  a bad rollout is data, not a crash
        ending, fault = Ending.FAULTED, _fault(error)
    return Rollout(task.id, index, prior, trajectory, ending, reward, fault, started, clock())


def _fault(error: Exception) -> Fault:
    kinds = ((ModelError, FaultKind.MODEL), (VerifierError, FaultKind.VERIFIER), (ToolError, FaultKind.TOOL))
    kind = next((kind for family, kind in kinds if isinstance(error, family)), FaultKind.TOOL)
    retryable = bool(getattr(error, "retryable", False))
    return Fault(kind, type(error).__name__, str(error), retryable)
