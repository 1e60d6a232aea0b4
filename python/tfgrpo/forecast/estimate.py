"""An estimate of a run before it starts: calls, tokens, money, the least time. Nothing is sent or written.

Three courses are imagined. Low: no group teaches and answers are short. Middle: what is likely. High: every group
teaches, every answer runs to its limit, every group request is refused, every distiller's reply is repaired, and
one group in ten is asked again. Attempts that fail are in none of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

import msgspec

from tfgrpo.forecast.ceiling import RATES
from tfgrpo.forecast.facts import LOCAL_SLOTS, Count, Facts
from tfgrpo.forecast.guesses import ASKED_AGAIN, ATTEMPTS, QUESTIONS, Guesses, guessed
from tfgrpo.forecast.ranges import Range
from tfgrpo.forecast.sizes import FRAME, Sizes, message_count
from tfgrpo.forecast.walk import CACHED_FROM, Sum, Walk
from tfgrpo.library import tokenizer_for_model
from tfgrpo.models.pricing import cost
from tfgrpo.types import Role, Usage

JUDGE = "judge"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one phase, or all of them.

    `attempts` counts attempts at tasks, or the answers that are wanted of the distiller. Calls, tokens and money are
    None where nobody knows what an attempt takes; `cached_tokens` are part of the input; `usd` is None also where a
    price is missing. The low end of the money is that of few tokens of which many were cached, the high end that of
    many of which none was.
    """

    role: str
    phase: str
    attempts: Range
    calls: Range | None
    input_tokens: Range | None
    cached_tokens: Range | None
    output_tokens: Range | None
    usd: Range | None


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The least seconds that one limit lets the calls of one provider take; `value` is the limit's."""

    provider: str
    limit: str
    value: int
    seconds: Range


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The calls, tokens, money and time that a run will take.

    `least_seconds` is None where no limit tells; `source` is the run whose means it rests on, None where it rests
    on guesses. The total counts the attempts at tasks.
    """

    lines: tuple[Line, ...]
    total: Line
    floors: tuple[Floor, ...]
    least_seconds: Range | None
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    source: str | None


def estimate(facts: Facts, guesses: Guesses | None = None, count: Count | None = None) -> Estimate:
    """Estimate a run.

    Args:
        facts: about the run.
        guesses: the numbers that nobody knows; by default `guessed`.
        count: counts a prompt; by default the tokenizer of each role's model does.
    """
    guesses = guesses or guessed(facts.method, facts.agent, facts.distill)
    counts = {role: count or message_count(facts.models[role].label) for role in Role}
    sums = Walk(facts, guesses, Sizes(facts, guesses, counts)).run()
    phases = (phase for phase in (*ATTEMPTS, *QUESTIONS, JUDGE) if phase in sums)
    lines = tuple(_line(facts, guesses, phase, sums[phase]) for phase in phases)
    total = _total(lines)
    floors = tuple(_floors(facts, guesses, lines))
    return Estimate(
        lines=lines,
        total=total,
        floors=floors,
        least_seconds=_longest(floors),
        warnings=tuple(_warnings(facts, lines, total)),
        assumptions=tuple(_assumptions(facts, guesses)),
        source=guesses.source,
    )


def _line(facts: Facts, guesses: Guesses, phase: str, found: Sum) -> Line:
    role = Role.JUDGE if phase == JUDGE else Role.DISTILLER if phase in QUESTIONS else Role.ROLLOUT
    attempts = found.attempts.whole()
    if not found.known:
        return Line(
            role=role.value,
            phase=phase,
            attempts=attempts,
            calls=None,
            input_tokens=None,
            cached_tokens=None,
            output_tokens=None,
            usd=None,
        )
    cached = Range(0.0, found.shared.middle, found.shared.high)
    best = found.shared.low
    if (share := guesses.costs[phase].cached) is not None:
        cached = found.input * share
        best = cached.low
    usd: Range | None = None
    model = facts.models[role]
    if model.price is not None or model.local:
        courses = (
            Usage(1, round(found.input.low), round(best), round(found.output.low)),
            Usage(1, round(found.input.middle), round(cached.middle), round(found.output.middle)),
            Usage(1, round(found.input.high), round(cached.low), round(found.output.high)),
        )
        usd = Range(*(cost(usage, model.price) for usage in courses))
    return Line(
        role=role.value,
        phase=phase,
        attempts=attempts,
        calls=found.calls.whole(),
        input_tokens=found.input.whole(),
        cached_tokens=cached.whole(),
        output_tokens=found.output.whole(),
        usd=usd,
    )


def _total(lines: Sequence[Line]) -> Line:
    return Line(
        role="",
        phase="total",
        attempts=sum((line.attempts for line in lines if line.role == Role.ROLLOUT), Range()),
        calls=_sum(line.calls for line in lines),
        input_tokens=_sum(line.input_tokens for line in lines),
        cached_tokens=_sum(line.cached_tokens for line in lines),
        output_tokens=_sum(line.output_tokens for line in lines),
        usd=_sum(line.usd for line in lines),
    )


def _sum(ranges: Iterable[Range | None]) -> Range | None:
    """All together; None where one is not known."""
    total = Range()
    for one in ranges:
        if one is None:
            return None
        total += one
    return total


def _floors(facts: Facts, guesses: Guesses, lines: Sequence[Line]) -> Iterator[Floor]:
    """The seconds that each limit alone makes of the calls of each provider; roles of one provider share its limits."""
    providers: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.calls is not None:  # the others would only add to it
            providers[facts.models[Role(line.role)].provider].append(line)
    for own in providers.values():
        total = _total(own)
        calls, read, written = (
            found or Range() for found in (total.calls, total.input_tokens, total.output_tokens)
        )
        taken = dict(zip(RATES, (calls, read + written, read, written), strict=True))
        for key in RATES:
            value: int | None = getattr(facts.limits, key)
            if value is not None:
                seconds = taken[key] * (60 / value)
                yield Floor(provider=own[0].role, limit=f"limits.{key}", value=value, seconds=seconds)
        work = Range()
        for line in own:
            if line.calls is not None:
                work += line.calls * (guesses.costs[line.phase].seconds or 0.0)
        if work.high:
            places = facts.limits.concurrency
            if facts.models[Role(own[0].role)].local:
                places = min(places, LOCAL_SLOTS)
            seconds = work * (1 / places)
            yield Floor(provider=own[0].role, limit="limits.concurrency", value=places, seconds=seconds)


def _longest(floors: Sequence[Floor]) -> Range | None:
    """No run ends before its slowest limit has let everything pass."""
    if not floors:
        return None
    ends = (attrgetter(end) for end in ("low", "middle", "high"))
    return Range(*(max(end(floor.seconds) for floor in floors) for end in ends))


def _warnings(facts: Facts, lines: Sequence[Line], total: Line) -> Iterator[str]:
    """Say where a budget will, or may, end the run."""
    wanted: list[tuple[str, float, Range, str]] = []
    if facts.tokens is not None and total.input_tokens is not None and total.output_tokens is not None:
        tokens = total.input_tokens + total.output_tokens
        wanted.append(("budget.tokens", facts.tokens, tokens, "{:,.0f}"))
    if facts.usd is not None:
        if any(line.usd is None and line.calls is not None for line in lines):
            yield (
                "budget.usd cannot bind: a model that is called has no [model.price]; set the prices, or "
                "budget.tokens."
            )
        elif total.usd is not None:
            wanted.append(("budget.usd", facts.usd, total.usd, "${:,.2f}"))
    for key, limit, needed, form in wanted:
        told = f"{key} = {form.format(limit)}"
        if limit < needed.low:
            yield f"{told} cannot be enough: the least this run takes is {form.format(needed.low)}."
        elif limit < needed.middle:
            yield (
                f"{told} will probably end the run early: about {form.format(needed.middle)} are likely. "
                "Everything would be kept, and resuming with a higher budget goes on."
            )
        elif limit < needed.high:
            yield f"{told} is likely to be enough, but not for the high end ({form.format(needed.high)})."


def _assumptions(facts: Facts, guesses: Guesses) -> Iterator[str]:
    """The figures' foundations, in words."""
    teaching, kept, own = guesses.teaching.middle, guesses.kept[-1].middle, guesses.costs["practice"]
    shares = f"{teaching:.0%} of the groups teach, {kept:.0%} of the lessons stay"
    answer = f"an answer has about {own.output.middle:.0f} tokens"
    if guesses.unknown:
        yield (
            "an attempt of this agent makes an unknown number of calls, so only attempts are counted; --from RUN_DIR "
            "takes the means of a run, and a run tells them after the first attempts of its baseline"
        )
        yield f"guessed: {shares}"
    elif guesses.source is None:
        yield f"guessed: {shares}, {answer}; --from RUN_DIR takes the means of a run instead"
        if facts.agent.max_tokens is None:
            yield f"agent.max_tokens is not set: the high end takes answers of {own.output.high:,.0f} tokens"
    else:
        turns = "" if own.asks.middle == 1 else f"an attempt makes {own.asks.middle:.2g} calls, "
        yield f"means of {guesses.source}: {shares}, {turns}{answer}"
    model = facts.models[Role.ROLLOUT]
    if not model.local and model.group_requests == "auto" and own.together is None and not guesses.unknown:
        yield (
            "the likely course takes the answers of a group from one request (n = group_size), the high end "
            "one request an answer"
        )
    yield f"cached: beginnings of {CACHED_FROM:,} tokens and more that an earlier prompt had, none at the high cost"
    yield f"the high end asks {ASKED_AGAIN:.0%} of the groups again; attempts that fail are not counted"
    tokenizers = {tokenizer_for_model(facts.models[role].label) for role in (Role.ROLLOUT, Role.DISTILLER)}
    yield f"counted with {' and '.join(sorted(tokenizers))}, and {FRAME} tokens a message"


def rollout_size(found: Estimate) -> tuple[float, float] | None:
    """Mean tokens in and out of one call of the rollouts, in the likely course; None where they are not known."""
    total = _total([line for line in found.lines if line.role == Role.ROLLOUT])
    if total.calls is None or total.input_tokens is None or total.output_tokens is None:
        return None
    calls = total.calls.middle or 1.0
    return total.input_tokens.middle / calls, total.output_tokens.middle / calls
