"""Goes through the plan of a run and multiplies its work by the cost of one attempt and the chance of its condition."""

from __future__ import annotations

import math
from collections import defaultdict

import msgspec

from tfgrpo.engine.plan import Work, run_work
from tfgrpo.forecast.chances import Chances
from tfgrpo.forecast.facts import LOCAL_SLOTS, Facts, ModelFacts
from tfgrpo.forecast.guesses import ASKED_AGAIN, Guesses
from tfgrpo.forecast.ranges import Range, flat
from tfgrpo.forecast.sizes import Sizes
from tfgrpo.types import Role

#: Tokens that a prompt must share with an earlier one before most providers cache it.
CACHED_FROM = 1024


class Sum(msgspec.Struct):
    """The calls of one phase, added up.

    `shared` are the tokens of the input that an earlier prompt of the run had as well: in the low and the high
    course all of them, in the middle one only those that most providers would cache. `calls` and what follows mean
    nothing where the cost of an attempt is not `known`.
    """

    attempts: Range = Range()
    calls: Range = Range()
    input: Range = Range()
    shared: Range = Range()
    output: Range = Range()
    known: bool = True


class Walk:
    """One way through the plan, in three courses at once.

    Args:
        facts: about the run.
        guesses: the cost of an attempt and of a question, by phase.
        sizes: of prompts.
    """

    def __init__(self, facts: Facts, guesses: Guesses, sizes: Sizes) -> None:
        self._facts, self._guesses, self._sizes = facts, guesses, sizes
        self._chances = Chances(facts, guesses)

    def run(self) -> dict[str, Sum]:
        """Add up the work of a run by phase; "judge" are the calls of a verifier."""
        facts, guesses = self._facts, self._guesses
        sums: dict[str, Sum] = defaultdict(Sum)
        attempted = Range()
        for work in run_work(facts.method, facts.practice, facts.held_out):
            blocks = self._chances.of(work) * work.blocks * Range(1, 1, 1 + ASKED_AGAIN * work.again)
            if not blocks.high:
                continue
            found, members = sums[work.phase], _members(work, facts.models[Role.ROLLOUT])
            found.attempts += blocks * members
            if work.role is Role.ROLLOUT:
                attempted += blocks * members
            if work.phase in guesses.unknown:
                found.known = False
            elif work.role is Role.ROLLOUT:
                self._add_attempts(work, found, blocks, members)
            else:
                self._add_questions(work, found, blocks, members)
        judging = guesses.costs.get("judge")
        if judging is not None:
            calls = attempted * judging.asks
            read = calls * (judging.input or 0.0)
            sums["judge"] = Sum(attempted, calls, read, Range(), calls * judging.output)
        return dict(sums)

    def _add_attempts(self, work: Work, found: Sum, blocks: Range, members: Range) -> None:
        """Add blocks of attempts at one prompt: their first calls may share requests, the later ones never meet."""
        cost = self._guesses.costs[work.phase]
        prompt, common = self._sizes.attempt(work, self._chances.entries(work))
        first = _requests(self._facts.models[Role.ROLLOUT], members, cost.together)
        calls = blocks * (first * cost.asks.most(1) + members * (cost.asks - flat(1)).least(0))
        found.calls += calls
        found.input += calls * prompt
        found.shared += (blocks - flat(1)).least(0) * _cached(common)
        found.shared += (calls - blocks).least(0) * _cached(prompt)
        found.output += blocks * members * cost.asks * cost.output

    def _add_questions(self, work: Work, found: Sum, blocks: Range, members: Range) -> None:
        """Add questions to the distiller; the high course has each of them repaired, but for free text."""
        facts, guesses, chances = self._facts, self._guesses, self._chances
        cost, lessons = guesses.costs[work.phase], chances.lessons(work)
        prompt = self._sizes.question(work, chances.entries(work), lessons, chances.retold)
        output = cost.output
        if work.once and cost.input is None:  # the guess is the length of one operation
            longest = facts.distill.max_tokens
            several = (output * lessons * guesses.kept[0]).most(longest)
            output = Range(several.low, several.middle, longest)
        model = facts.models[Role.DISTILLER]
        alike = model.provider == facts.models[Role.ROLLOUT].provider
        together = guesses.costs["practice"].together if alike else None
        apart = work.apart or (model.local and work.size > LOCAL_SLOTS)
        calls = blocks * (members if apart else _requests(model, members, together))
        repairs = blocks * Range(0, 0, not work.apart)
        found.calls += calls + repairs
        found.input += calls * prompt + repairs * (prompt + output)
        found.output += blocks * members * output + repairs * output


def _members(work: Work, model: ModelFacts) -> Range:
    """Attempts, or answers, of one block: `spare` more where each attempt is a request of its own."""
    single = model.group_requests == "never" and not work.apart
    spare = 0 if model.local or model.group_requests == "always" else work.spare
    return flat(work.size) + Range(0, spare * single, spare)


def _requests(model: ModelFacts, members: Range, together: float | None) -> Range:
    """Requests for so many answers to one prompt."""
    if model.local:
        return flat(math.ceil(members.middle / LOCAL_SLOTS))
    if model.group_requests == "never":
        return members
    if model.group_requests == "always":
        return flat(1)
    alone = 0.0 if together is None else 1 - together
    return Range(1, 1 + (members.middle - 1) * alone, members.high)


def _cached(tokens: Range) -> Range:
    """Tokens of a shared beginning that may be cached: see `Sum.shared`."""
    return Range(tokens.low, tokens.middle if tokens.middle >= CACHED_FROM else 0.0, tokens.high)
