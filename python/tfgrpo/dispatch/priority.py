"""Who goes first among calls that wait for a slot: the order of priorities, in one place."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Smaller goes first. Groups that are started get finished, and what they teach is drawn at once.

    A step is as long as its slowest chain of calls: rollouts, summaries, comparison, proposals, consolidation.
    What stands late in that chain has the least left to hide its waiting behind, so it goes first.
    """

    CRITICAL = -2
    """The critical path: summaries, comparisons, proposals, consolidation."""
    FINISH = -1
    """Finishes what is started: later turns, followers of a leader, refills, re-runs that a lesson waits for."""
    START = 0
    """Starts a group."""
