"""A virtual clock that stands while the journal writes: times are exact, however slow the disk is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

import pytest

from tfgrpo.journal import Journal
from tfgrpo.testing import VirtualClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SteadyClock(VirtualClock):
    """A clock for tests that look at times, or that have timers which must not fire."""

    def __init__(self) -> None:
        super().__init__(grace=0.001)

    def run(self, main: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("intend", "complete", "fail", "record"):
                patch.setattr(Journal, name, self._steadied(getattr(Journal, name)))
            return super().run(main, *args)

    def _steadied(self, write: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def held(*args: Any, **named: Any) -> Any:
            with self.hold():
                return await write(*args, **named)

        return held
