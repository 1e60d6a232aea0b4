"""The numbers that nobody knows before a run: lengths of answers, how many groups teach, how much of it stays.

The guesses are few and stand here, so that they can be judged; `measure` replaces them by the means of a run.
"""

from __future__ import annotations

import math

import msgspec

from tfgrpo.engine.plan import Method
from tfgrpo.forecast.facts import AgentFacts, DistillFacts
from tfgrpo.forecast.ranges import Range, flat

#: Tokens of an answer in a JSON schema, of one in free text, and of a summary (its prompt asks for 150 words).
SCHEMA_ANSWER, FREE_ANSWER, SUMMARY = 24, 400, 200
#: The longest answer where nothing bounds it.
UNBOUNDED = 4096
#: Words of an experience as a share of the longest one permitted, and tokens a word of English.
WORDS_USED, TOKENS_A_WORD = 0.7, 1.4
#: The share of lessons that become an experience where they are settled by a model or have to gain.
KEPT = 0.5
#: The share of lessons that pass a gate, and the share that meets another of the same strategy.
GAINS, ALIKE = Range(0, 0.5, 1), 0.25
#: The most operations that a lesson is taken to become where a model proposes them.
OPERATIONS = 4
#: The share of groups that the high end asks again for want of graded rollouts.
ASKED_AGAIN = 0.1

ATTEMPTS = ("baseline", "practice", "probe", "gate", "learned")
QUESTIONS = ("summarize", "advantage", "propose", "consolidate")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one attempt, or of one question to the distiller.

    `asks` is how many model calls it makes, `output` the tokens of one answer. The rest is known only from a run:
    `input`, the mean tokens of a prompt where `entries` experiences were in the library (None: prompts are counted),
    `cached`, the share of input tokens that were, `seconds` a request, and `together`, the share of an attempt's
    siblings whose first call was answered by the same request.
    """

    output: Range
    asks: Range = flat(1)
    input: float | None = None
    entries: float = 0.0
    cached: float | None = None
    seconds: float | None = None
    together: float | None = None


class Guesses(msgspec.Struct, frozen=True, kw_only=True):
    """Everything uncertain.

    `teaching` is the share of groups that teach; `kept` how many experiences there are a group that taught, after
    each step (the last holds for all later ones); `costs` are by phase, under "judge" those of a verifier's calls an
    attempt, where it makes any; the phases in `unknown` cost nobody knows what. `answer` is the length of an attempt as
    the distiller is shown it. From a run: `experiences`, the texts that were learned, and `source`, its name.
    """

    teaching: Range
    kept: tuple[Range, ...]
    costs: dict[str, Cost]
    answer: Range
    unknown: tuple[str, ...] = ()
    experiences: tuple[str, ...] = ()
    source: str | None = None


def guessed(method: Method, agent: AgentFacts, distill: DistillFacts) -> Guesses:
    """Guess, before anything was measured.

    The likely share of groups that teach is that of success rates of which none is likelier than another:
    (G - 1) / (G + 1); a single rollout teaches when it is wrong, one time in two.
    """
    size = method.group_size
    teaching = (size - 1) / (size + 1) if size > 1 else 0.5
    settled = method.propose != "add" or method.consolidate != "none" or method.select == "gain"
    answer = _output(
        SCHEMA_ANSWER if agent.response_schema is not None else FREE_ANSWER, agent.max_tokens or UNBOUNDED
    )
    lesson = distill.words * WORDS_USED * TOKENS_A_WORD + 20
    # Of a consolidation the length of one operation: how many there are is counted.
    lengths = {"summarize": SUMMARY, "advantage": lesson, "propose": lesson + 15, "consolidate": lesson + 15}
    costs = {phase: Cost(output=_output(length, distill.max_tokens)) for phase, length in lengths.items()}
    costs |= {phase: Cost(output=answer if agent.direct else Range(0, 0, math.inf)) for phase in ATTEMPTS}
    return Guesses(
        teaching=Range(0.0, teaching, 1.0),
        kept=(Range(0.0, KEPT if settled else 1.0, 1.0),),
        costs=costs,
        answer=answer,
        unknown=() if agent.direct else (*ATTEMPTS, "summarize"),
    )


def _output(likely: float, longest: float) -> Range:
    """One answer: an eighth of the guess at least, all that is permitted at most."""
    middle = min(likely, longest)
    return Range(max(middle / 8, 1), middle, longest)
