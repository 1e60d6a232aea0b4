"""The chance of each condition in the plan, and the size of the library that a piece of work has in view."""

from __future__ import annotations

import math
from itertools import accumulate

from tfgrpo.distill.summarize import SHORT
from tfgrpo.engine.plan import Given, Work, plan
from tfgrpo.forecast.facts import Facts
from tfgrpo.forecast.guesses import ALIKE, GAINS, OPERATIONS, Guesses
from tfgrpo.forecast.ranges import Range, flat

#: Characters a token, at most: whether an answer is surely short enough to need no summary.
CHARACTERS_A_TOKEN = 4


class Chances:
    """The chances of one run.

    Args:
        facts: about the run.
        guesses: how many groups teach, and how much of it stays.
    """

    def __init__(self, facts: Facts, guesses: Guesses) -> None:
        self._method, self._guesses = facts.method, guesses
        self._start = flat(len(facts.library))
        batches = plan(facts.method, facts.practice)
        self._groups = [0, *accumulate(len(batch.tasks) for batch in batches)]
        self._passed = GAINS if facts.method.select == "gain" else flat(1)
        #: The share of attempts that are retold before they are compared.
        self.retold = _retold(facts, guesses)

    def entries(self, work: Work) -> Range:
        """The number of experiences in the library that the work has in view."""
        taught = self._guesses.teaching * self._groups[work.reads]
        kept = self._guesses.kept
        return self._start + taught * kept[min(max(work.reads - 1, 0), len(kept) - 1)] + flat(work.tried)

    def lessons(self, work: Work) -> Range:
        """The number of lessons that its step keeps."""
        return self._guesses.teaching * self._passed * work.groups

    def of(self, work: Work) -> Range:
        """The chance that the condition of the work is met."""
        teaching = self._guesses.teaching
        kept = teaching * self._passed
        lessons, asked = self.lessons(work), self._method.propose == "model"
        match work.given:
            case Given.ALWAYS:
                return flat(1)
            case Given.TEACHES:
                return teaching
            case Given.LONG:
                return teaching * self.retold
            case Given.REVIEWED:
                entries = self.entries(work)
                return kept * Range(0, entries.middle >= 0.5, entries.high >= 0.5)
            case Given.ALIKE:
                return kept * Range(0, ALIKE, OPERATIONS if asked else 1)
            case Given.CHANGED:
                return Range(0, _at_least(1, lessons.middle), lessons.high > 0)
            case Given.SEVERAL:
                return Range(0, _at_least(2, lessons.middle), lessons.high > (0 if asked else 1))


def _retold(facts: Facts, guesses: Guesses) -> Range:
    way = facts.method.summaries
    if way != "auto":
        return flat(way == "always")
    if not facts.agent.direct:
        return Range(0, 1, 1)  # turns are always retold
    short = SHORT / CHARACTERS_A_TOKEN
    return Range(0, guesses.answer.middle > short, guesses.answer.high > short)


def _at_least(number: int, mean: float) -> float:
    """The chance that there are at least one or two where so many are expected (by Poisson)."""
    return 1 - math.exp(-mean) * (1 if number == 1 else 1 + mean)
