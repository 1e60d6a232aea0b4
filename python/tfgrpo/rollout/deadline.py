"""The bound on one attempt: so many seconds from its first launch, or until its group needs it no longer."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

import anyio

from tfgrpo.dispatch import Watcher
from tfgrpo.errors import CutOffError, ModelError, TaskTimeoutError


class Deadline:
    """Bounds what is done inside of it; past the bound the block ends with the error that says why.

    The clock starts when the first effect is really sent. It stands while all that the attempt waits for is a slot of
    ours: a queue for a place, for money, for a provider that paces us or is down. All else counts, the agent's own
    work and the pauses before retries too.

    Args:
        seconds: from the first launch to the answer.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._seconds = self._left = seconds
        self._started = False
        self._running_since: float | None = None
        self._outstanding = self._queued = 0
        self._scope = anyio.CancelScope()
        self._error: ModelError | None = None

    def watch(self) -> EffectWatch:
        """A watcher of one effect of the attempt, from now until `EffectWatch.ended`."""
        self._outstanding += 1
        self._queued += 1
        self._set()
        return EffectWatch(self)

    def launched(self) -> None:
        """Count one effect less that waits for a slot."""
        self._started = True
        self._queued -= 1
        self._set()

    def queue(self) -> None:
        """Count one effect more that waits for a slot."""
        self._queued += 1
        self._set()

    def ended(self, *, queued: bool) -> None:
        """Count one effect less."""
        self._outstanding -= 1
        self._queued -= queued
        self._set()

    def lift(self) -> None:
        """Let the clock stand for good: the answer is there, and grading it has a bound of its own."""
        self._left = math.inf
        self._running_since = None
        self._scope.deadline = math.inf

    def cut(self) -> None:
        """End the attempt: its group closes without it, whether or not it has begun."""
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

    def _set(self) -> None:
        """Let the clock run, or stand."""
        if self._left == math.inf:
            return
        runs = self._started and (self._outstanding == 0 or self._queued < self._outstanding)
        if runs and self._running_since is None:
            self._running_since = anyio.current_time()
            self._scope.deadline = self._running_since + self._left
        elif not runs and self._running_since is not None:
            self._left -= anyio.current_time() - self._running_since
            self._running_since = None
            self._scope.deadline = math.inf

    def __enter__(self) -> Self:
        """Enter once.

        Raises:
            ModelError: the attempt was cut off before it began.
        """
        if self._error is not None:
            raise self._error.again()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        swallowed = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught and self.error is not None:
            raise self.error.again() from None
        return bool(swallowed)


class EffectWatch(Watcher):
    """Tells a deadline what becomes of one effect."""

    __slots__ = ("_deadline", "_queued")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._queued = True

    def launched(self) -> None:
        """See `Watcher`."""
        if self._queued:
            self._queued = False
            self._deadline.launched()

    def queued(self) -> None:
        """See `Watcher`."""
        if not self._queued:
            self._queued = True
            self._deadline.queue()

    def abandoned(self) -> ModelError | None:
        """See `Watcher`."""
        return self._deadline.error

    def ended(self) -> None:
        """Tell that the effect is over."""
        self._deadline.ended(queued=self._queued)
