"""A switch that asks a run to stop: calls in flight finish, everything is kept, the run can be resumed."""

from __future__ import annotations

from collections.abc import Callable

from tfgrpo.errors import InterruptedRunError, TfgrpoError


class StopSwitch:
    """Hand one to `practice`, `evaluate` or `resume`, and call `stop` from the same event loop."""

    def __init__(self) -> None:
        self._reason: TfgrpoError | None = None
        self._halt: Callable[[TfgrpoError], object] | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop was asked for."""
        return self._reason is not None

    @property
    def attached(self) -> bool:
        """Whether a run is connected; before that nothing is in flight that could be drained."""
        return self._halt is not None

    def stop(self, message: str = "The run was interrupted; everything is kept.") -> None:
        """Ask the run to stop. The first call counts."""
        if self._reason is None:
            self._reason = InterruptedRunError(message)
            if self._halt is not None:
                self._halt(self._reason)

    def attach(self, halt: Callable[[TfgrpoError], object]) -> None:
        """Connect the run; a stop that was asked for before takes effect at once."""
        self._halt = halt
        if self._reason is not None:
            halt(self._reason)
