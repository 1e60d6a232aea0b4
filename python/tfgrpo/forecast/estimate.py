"""What a practice run will take, before it starts: calls, tokens, money, the least time. Nothing is sent or written.

Three courses are imagined. Low: no group teaches and answers are short. Middle: what is likely. High: every group
teaches, every answer runs to its limit, every group request is refused, every distiller's reply is repaired, and
one group in ten is asked again. Attempts that fail are in none of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from tfgrpo.config import Config
from tfgrpo.distill import Prompts
from tfgrpo.forecast.ceiling import RATES
from tfgrpo.forecast.forecast import ASKED_AGAIN, CACHED_FROM, LOCAL_SLOTS, Count, Forecast, Sum
from tfgrpo.forecast.guesses import DISTILL, ROLLOUTS, Guesses, Range, guessed
from tfgrpo.library import ExperienceLibrary, count_tokens, tokenizer_for_model
from tfgrpo.models.pricing import cost
from tfgrpo.types import Message, Role, Task, Usage

#: Tokens with which providers frame each message, roughly.
FRAME = 4


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one phase, or all of them.

    `cached_tokens` are part of the input; `usd` is None where a price is missing. The low end of the money is
    that of few tokens of which many were cached, the high end that of many of which none was.
    """

    role: str
    phase: str
    calls: Range
    input_tokens: Range
    cached_tokens: Range
    output_tokens: Range
    usd: Range | None


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The least seconds that one limit lets the calls of one provider take; `value` is the limit's."""

    provider: str
    limit: str
    value: int
    seconds: Range


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a run will take.

    `least_seconds` is None where no limit tells; `source` is the run whose means it rests on, None where it rests
    on guesses.
    """

    lines: tuple[Line, ...]
    total: Line
    floors: tuple[Floor, ...]
    least_seconds: Range | None
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    source: str | None


def estimate(
    config: Config,
    practice: Sequence[Task],
    held_out: Sequence[Task],
    prompts: Prompts,
    *,
    library: ExperienceLibrary | None = None,
    guesses: Guesses | None = None,
    count: Count | None = None,
) -> Estimate:
    """Estimate a run.

    Args:
        config: the configuration.
        practice: the tasks practised on, already drawn; none for an evaluation.
        held_out: the held-out tasks.
        prompts: the distiller's prompts.
        library: v_0; by default empty.
        guesses: what cannot be known; by default `guessed(config)`.
        count: counts a prompt; by default the tokenizer of each role's model does.
    """
    guesses = guesses or guessed(config)
    counts = {role: count or message_count(config.model.role(role).label) for role in Role}
    library = library or ExperienceLibrary.empty()
    sums = Forecast(config, practice, held_out, prompts, library, guesses, counts).run()
    phases = (phase for phase in (*ROLLOUTS, *DISTILL) if phase in sums)
    lines = tuple(_line(config, guesses, phase, sums[phase]) for phase in phases)
    total = _total(lines)
    floors = tuple(_floors(config, guesses, lines))
    return Estimate(
        lines=lines,
        total=total,
        floors=floors,
        least_seconds=_longest(floors),
        warnings=tuple(_warnings(config, total)),
        assumptions=tuple(_assumptions(config, guesses)),
        source=guesses.source,
    )


def message_count(model: str) -> Count:
    """Counts prompts by the tokenizer of a model (o200k where it is not bundled), framing included."""
    tokenizer = tokenizer_for_model(model)

    def count(messages: Sequence[Message]) -> int:
        return sum(count_tokens(message.content, tokenizer) + FRAME for message in messages)

    return count


def _line(config: Config, guesses: Guesses, phase: str, found: Sum) -> Line:
    role = Role.ROLLOUT if phase in ROLLOUTS else Role.DISTILLER
    endpoint = config.model.role(role)
    cached = Range(0.0, found.shared.middle, found.shared.high)
    best = found.shared.low
    if (share := guesses.cached.get(phase)) is not None:
        cached = found.input * share
        best = cached.low
    usd: Range | None = None
    if endpoint.price is not None or endpoint.local is not None:
        courses = (
            Usage(1, round(found.input.low), round(best), round(found.output.low)),
            Usage(1, round(found.input.middle), round(cached.middle), round(found.output.middle)),
            Usage(1, round(found.input.high), round(cached.low), round(found.output.high)),
        )
        usd = Range(*(cost(usage, endpoint.price) for usage in courses))
    return Line(
        role=role.value,
        phase=phase,
        calls=found.calls.whole(),
        input_tokens=found.input.whole(),
        cached_tokens=cached.whole(),
        output_tokens=found.output.whole(),
        usd=usd,
    )


def _total(lines: Sequence[Line]) -> Line:
    usd: Range | None = Range()
    for line in lines:
        usd = None if usd is None or line.usd is None else usd + line.usd
    return Line(
        role="",
        phase="total",
        calls=sum((line.calls for line in lines), Range()),
        input_tokens=sum((line.input_tokens for line in lines), Range()),
        cached_tokens=sum((line.cached_tokens for line in lines), Range()),
        output_tokens=sum((line.output_tokens for line in lines), Range()),
        usd=usd,
    )


def _floors(config: Config, guesses: Guesses, lines: Sequence[Line]) -> Iterator[Floor]:
    """What each limit alone makes of the calls of each provider; roles of one endpoint share its limits."""
    providers: dict[object, list[Line]] = defaultdict(list)
    for line in lines:
        providers[config.model.role(Role(line.role))].append(line)
    for own in providers.values():
        total = _total(own)
        taken = {
            "requests_per_minute": total.calls,
            "tokens_per_minute": total.input_tokens + total.output_tokens,
            "input_tokens_per_minute": total.input_tokens,
            "output_tokens_per_minute": total.output_tokens,
        }
        for key in RATES:
            value: int | None = getattr(config.limits, key, None)
            if value is not None:
                seconds = taken[key] * (60 / value)
                yield Floor(provider=own[0].role, limit=f"limits.{key}", value=value, seconds=seconds)
        known = [line for line in own if line.phase in guesses.seconds]
        if known:
            work = sum((line.calls * guesses.seconds[line.phase] for line in known), Range())
            local = config.model.role(Role(own[0].role)).local is not None
            places = min(config.limits.concurrency, LOCAL_SLOTS) if local else config.limits.concurrency
            seconds = work * (1 / places)
            yield Floor(provider=own[0].role, limit="limits.concurrency", value=places, seconds=seconds)


def _longest(floors: Sequence[Floor]) -> Range | None:
    """No run ends before its slowest limit has let everything pass."""
    if not floors:
        return None
    return Range(*(max(getattr(floor.seconds, end) for floor in floors) for end in ("low", "middle", "high")))


def _warnings(config: Config, total: Line) -> Iterator[str]:
    """Where a budget will, or may, end the run."""
    wanted: list[tuple[str, float, Range, str]] = []
    if (tokens := config.budget.tokens) is not None:
        wanted.append(("budget.tokens", tokens, total.input_tokens + total.output_tokens, "{:,.0f}"))
    if (usd := config.budget.usd) is not None:
        if total.usd is None:
            yield (
                "budget.usd cannot bind: a model that is called has no [model.price]; set the prices, or "
                "budget.tokens."
            )
        else:
            wanted.append(("budget.usd", usd, total.usd, "${:,.2f}"))
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


def _assumptions(config: Config, guesses: Guesses) -> Iterator[str]:
    """What the figures rest on, in words."""
    if guesses.source is None:
        teaching, kept = guesses.teaching.middle, guesses.kept[-1].middle
        yield (
            f"guessed: {teaching:.0%} of the groups teach, {kept:.0%} of the lessons stay, an answer has about "
            f"{guesses.output['practice'].middle:.0f} tokens; --from RUN_DIR takes the means of a run instead"
        )
    else:
        yield (
            f"means of {guesses.source}: {guesses.teaching.middle:.0%} of the groups teach, "
            f"{guesses.kept[-1].middle:.0%} of the lessons stay, an answer has about "
            f"{guesses.output['practice'].middle:.0f} tokens"
        )
    if config.agent.max_tokens is None and guesses.source is None:
        high = guesses.output["practice"].high
        yield f"agent.max_tokens is not set: the high end takes answers of {high:,.0f} tokens"
    endpoint = config.model.role(Role.ROLLOUT)
    if endpoint.local is None and endpoint.group_requests == "auto" and guesses.grouped is None:
        yield (
            "the likely course takes the answers of a group from one request (n = group_size), the high end "
            "one request an answer"
        )
    yield f"cached: beginnings of {CACHED_FROM:,} tokens and more that an earlier prompt had, none at the high cost"
    yield f"the high end asks {ASKED_AGAIN:.0%} of the groups again; attempts that fail are not counted"
    tokenizers = {
        tokenizer_for_model(config.model.role(role).label) for role in (Role.ROLLOUT, Role.DISTILLER)
    }
    yield f"counted with {' and '.join(sorted(tokenizers))}, and {FRAME} tokens a message"


def rollout_size(found: Estimate) -> tuple[float, float]:
    """Mean tokens in and out of one call of the rollouts, in the likely course."""
    own = [line for line in found.lines if line.role == Role.ROLLOUT.value]
    calls = sum(line.calls.middle for line in own) or 1.0
    total = _total(own)
    return total.input_tokens.middle / calls, total.output_tokens.middle / calls
