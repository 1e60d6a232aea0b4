"""Screens: each looks at a step's proposals in view of the newest library and refuses some, with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import DroppedOperation, Operation, Struct


class Screened(Struct, frozen=True):
    """The proposals that may go on, in their order, and the others with reasons."""

    kept: tuple[Operation, ...]
    dropped: tuple[DroppedOperation, ...] = ()


class Screen(Protocol):
    """Decides which proposals may go on. A function of its arguments: the same ones, the same decision."""

    def screen(self, proposals: Sequence[Operation], library: ExperienceLibrary) -> Screened:
        """Look at the proposals of one step.

        Args:
            proposals: in canonical order.
            library: the newest, to which they are going to be applied.
        """
        ...


class Overtaken:
    """Refuses what the newest library can no longer take.

    Only what was proposed for an earlier version is tried, each by itself: its target may have been deleted or
    rewritten meanwhile, or its text been learned by another step. Consolidation must not revive it: it would
    propose it as made for the newest version.
    """

    def screen(self, proposals: Sequence[Operation], library: ExperienceLibrary) -> Screened:
        """See `Screen.screen`."""
        kept: list[Operation] = []
        dropped: list[DroppedOperation] = []
        for operation in proposals:
            refused = (
                library.apply((operation,))[1].dropped if operation.base_version < library.version else ()
            )
            dropped += refused
            if not refused:
                kept.append(operation)
        return Screened(tuple(kept), tuple(dropped))


def screened(
    screens: Iterable[Screen], proposals: Sequence[Operation], library: ExperienceLibrary
) -> Screened:
    """The proposals that pass all screens, one after the other."""
    passed = Screened(tuple(proposals))
    for screen in screens:
        result = screen.screen(passed.kept, library)
        passed = Screened(result.kept, (*passed.dropped, *result.dropped))
    return passed
