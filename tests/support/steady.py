"""The clock of tests that look at times, or that have timers which must not fire."""

from __future__ import annotations

from tfgrpo.testing import VirtualClock


class SteadyClock(VirtualClock):
    """A virtual clock with little grace: the store's work holds it anyhow, however slow the disk is."""

    def __init__(self) -> None:
        super().__init__(grace=0.001)
