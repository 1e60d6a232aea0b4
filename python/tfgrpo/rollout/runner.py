"""One attempt becomes one terminal Rollout: completed, truncated, faulted or cut off; a fault is never a reward."""

from __future__ import annotations

import inspect
import math
import time
import traceback
from collections.abc import Callable
from numbers import Real
from typing import Any

from tfgrpo.errors import (
    FATAL_ERRORS,
    AgentError,
    CutOffError,
    ModelError,
    TfgrpoError,
    ToolError,
    VerifierError,
)
from tfgrpo.protocols import Agent, Verifier
from tfgrpo.rollout.scope import AttemptScope
from tfgrpo.types import (
    Choice,
    Ending,
    Fault,
    FaultKind,
    Message,
    ModelReply,
    Reward,
    Rollout,
)

_FAMILIES = (
    (ModelError, FaultKind.MODEL),
    (VerifierError, FaultKind.VERIFIER),
    (ToolError, FaultKind.TOOL),
    (AgentError, FaultKind.AGENT),
)


async def run_attempt(
    scope: AttemptScope,
    agent: Agent,
    verifier: Verifier | None,
    clock: Callable[[], float] = time.time,
) -> Rollout:
    """Attempt a task once and grade the attempt.

    Args:
        scope: the attempt; its deadline bounds it, and may cut it off.
        agent: attempts.
        verifier: grades; None leaves the rollout without a reward.
        clock: wall time in seconds for the record.

    Returns:
        The terminal record. What the agent or the verifier broke stands in `fault`, beside the trajectory as far as
        it got.

    Raises:
        TfgrpoError: only what has to stop the run (`errors.FATAL_ERRORS`).

    Cancellation: propagates; no record is made.
    """
    started = clock()
    reward: Reward | None = None
    fault: Fault | None = None
    ending = Ending.COMPLETED
    whose = FaultKind.AGENT
    try:
        try:
            with scope.deadline:
                scope.answered(_answer_of(await _awaited(agent, "attempt", scope)))
                scope.deadline.lift()
                whose = FaultKind.VERIFIER
                if scope.truncated:
                    ending = Ending.TRUNCATED
                if verifier is not None:
                    reward = _reward_of(await _awaited(verifier, "verify", scope))
        finally:
            await scope.close()
    except FATAL_ERRORS:
        raise
    except Exception as raised:  # noqa: BLE001  a bad rollout is data, not a crash
        error = _principal(raised)
        if isinstance(error, FATAL_ERRORS):
            raise error from None
        if isinstance(error, CutOffError):
            ending = Ending.CUT_OFF
        else:
            ending, fault = Ending.FAULTED, _fault(error, whose)
    return Rollout(
        scope.task.id,
        scope.index,
        scope.prior_ref,
        scope.trajectory,
        ending,
        reward,
        fault,
        started,
        clock(),
        scope.key.text,
        scope.usage,
        scope.diverged,
    )


async def _awaited(owner: Agent | Verifier, method: str, scope: AttemptScope) -> Any:
    """Call a user's method, which has to be async.

    Raises:
        AgentError: it is not.
    """
    made: Any = getattr(owner, method)(scope)
    if not inspect.isawaitable(made):
        kind = AgentError if method == "attempt" else VerifierError
        raise kind(
            f"{type(owner).__name__}.{method} is not async: write `async def {method}(self, scope)`; blocking work "
            "inside of it goes to a thread, for example by anyio.to_thread.run_sync."
        )
    return await made


def _answer_of(value: object) -> str:
    """The text of an agent's answer.

    Raises:
        AgentError: it is none.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, ModelReply | Choice | Message):
        return value.content
    told = "nothing" if value is None else f"a {type(value).__name__}"
    raise AgentError(
        f"The agent returned {told}; return the final answer as text, for example the content of the last reply. What "
        "it asked is kept."
    )


def _reward_of(value: object) -> Reward:
    """The reward that a verifier gave.

    Raises:
        VerifierError: it gave none.
    """
    if isinstance(value, Real):
        value = Reward(float(value))
    if not isinstance(value, Reward):
        told = "nothing" if value is None else f"a {type(value).__name__}"
        raise VerifierError(f"The verifier returned {told}; return a tfgrpo.Reward, or a number from 0 to 1.")
    if not (math.isfinite(value.value) and 0 <= value.value <= 1):
        raise VerifierError(f"The verifier gave a reward of {value.value:g}; rewards lie from 0 to 1.")
    return value


def _principal(error: BaseException) -> BaseException:
    """The error that counts: in a group of errors what stops the run, then one of ours, then the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inside = [_principal(member) for member in error.exceptions]
    families = (*FATAL_ERRORS, TfgrpoError, BaseException)
    return min(inside, key=lambda member: [isinstance(member, family) for family in families].index(True))


def _fault(error: BaseException, whose: FaultKind) -> Fault:
    kind = next((kind for family, kind in _FAMILIES if isinstance(error, family)), whose)
    retryable = bool(getattr(error, "retryable", False))
    message = str(error)
    if not isinstance(error, TfgrpoError):
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno})" if frames else ""
        message = f"{message or 'no message'}{place}"
    return Fault(kind, type(error).__name__, message, retryable)
