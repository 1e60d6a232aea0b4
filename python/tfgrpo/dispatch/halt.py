"""The halt of a run: nothing more is launched, what is in flight may finish, and every caller gets an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import anyio

from tfgrpo.errors import InterruptedRunError, RunStoppedError, TfgrpoError
from tfgrpo.models.deadline import Deadline, Watch

T = TypeVar("T")

#: How long (seconds) calls in flight may still finish once the run has to stop.
DRAIN = 30.0


class Halt:
    """The stop of a run: whether it has to, and why.

    Attributes:
        reason: None while it need not.
    """

    def __init__(self) -> None:
        self.reason: TfgrpoError | None = None
        self._in_flight = 0
        # What precedes a launch ends with a halt; what is in flight has a while to finish.
        self._launching = Deadline()
        self._flying = Deadline()
        self._drained = anyio.Event()

    def because(self, reason: TfgrpoError) -> RunStoppedError:
        """Launch nothing more. The first reason stays; an error of its own that carries it is returned."""
        if self.reason is None:
            self.reason = reason
            self._flying.cut(DRAIN)
            self._launching.cut(0.0)
            if self._in_flight == 0:
                self._drained.set()
        return RunStoppedError(self.reason.again())

    async def stop(self, reason: TfgrpoError) -> NoReturn:
        """Halt, let what is in flight finish within the bound, and raise an error of this caller's own.

        Raises:
            RunStoppedError: always.
        """
        stopped = self.because(reason)
        with anyio.move_on_after(DRAIN):
            await self._drained.wait()
        raise stopped

    async def unless(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Await what must precede a launch; a halt ends the wait.

        Raises:
            RunStoppedError: the run is halted.
        """
        if self.reason is None:
            try:
                with self._launching.watch():
                    got = await wait()
            except TimeoutError:
                pass
            else:
                if self.reason is None:
                    return got
        return await self.stop(InterruptedRunError("The run was halted."))

    def flight(self) -> Watch:
        """A context for what is in flight: once the run has to stop it ends in a TimeoutError after `DRAIN`."""
        return self._flying.watch()

    def launched(self) -> None:
        """One effect more is under way."""
        self._in_flight += 1

    def landed(self) -> None:
        """One effect less is under way."""
        self._in_flight -= 1
        if self.reason is not None and self._in_flight == 0:
            self._drained.set()
