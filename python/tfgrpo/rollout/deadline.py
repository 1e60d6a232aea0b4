"""The bound on one attempt: so many seconds from its first launch, or until its group needs it no longer."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

import anyio

from tfgrpo.errors import CutOffError, ModelError, TaskTimeoutError
from tfgrpo.types import Rollout


class Deadline:
    """Bounds what is done inside of it; past the bound the block ends with the error that says why.

    The clock starts with the first call that is really sent, so a rollout that waits for its first slot loses
    nothing by it. Whatever comes after counts, later turns and retries too, but for the time from a 429 to the
    next launch: a provider that paces us must not turn rollouts into faults.

    Args:
        seconds: from the first launch to the answer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = self._left = seconds
        self._running_since: float | None = None
        self._scope = anyio.CancelScope()
        self._error: ModelError | None = None

    def start(self) -> None:
        """A call was sent: the clock runs, if it did not."""
        if self._running_since is None:
            self._running_since = anyio.current_time()
            self._scope.deadline = self._running_since + self._left

    def pause(self) -> None:
        """A call was refused by a limit: the clock stands until the next one is sent."""
        if self._running_since is not None:
            self._left -= anyio.current_time() - self._running_since
            self._running_since = None
            self._scope.deadline = math.inf

    def lift(self) -> None:
        """The answer is there: grading it has a bound of its own."""
        self._scope.deadline = math.inf

    def cut(self) -> None:
        """The group closes without this attempt, whether or not it has begun."""
        if self._error is None and not self._scope.cancel_called:
            self._error = CutOffError(
                "This straggler was cut off, as its group had enough usable rollouts without it; it counts in "
                "no statistic, but may have been paid. practice.oversample = 0 starts no extra rollouts.",
                maybe_paid=True,
            )
            self._scope.cancel()

    @property
    def error(self) -> ModelError | None:
        """Why the attempt has to end; None while it need not."""
        if self._error is None and self._scope.cancel_called:
            self._error = TaskTimeoutError(
                f"The rollout had no answer {self._seconds:g} s after its first call was sent; raise "
                "limits.task_timeout, or lower limits.concurrency if the endpoint is overloaded.",
                maybe_paid=True,
            )
        return self._error

    def __enter__(self) -> Self:
        """Enter once.

        Raises:
            ModelError: the attempt was cut off before it began.
        """
        if self._error is not None:
            raise self._error
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        swallowed = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught and self.error is not None:
            raise self.error from None
        return bool(swallowed)


def is_cut_off(rollout: Rollout) -> bool:
    """Whether a rollout is a straggler that was cut off: nobody's fault, and in no statistic."""
    return rollout.fault is not None and rollout.fault.error == CutOffError.__name__
