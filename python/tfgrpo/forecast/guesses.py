"""What an estimate cannot know: how long answers get, how many groups teach, what of it stays. Guessed or measured.

The guesses are few and stand here, so that they can be judged; `measured` replaces them by the means of a run.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import msgspec

from tfgrpo.config import Config
from tfgrpo.engine.practice import stored_library
from tfgrpo.engine.records import StepRecord
from tfgrpo.errors import ConfigError
from tfgrpo.journal import CallStatus, JournalReader
from tfgrpo.rundir import journal_path, read_header, run_config

#: Tokens of an answer in a JSON schema, of one in free text, and of a summary (its prompt asks for 150 words).
SCHEMA_ANSWER, FREE_ANSWER, SUMMARY = 24, 400, 200
#: The longest answer where nothing bounds it.
UNBOUNDED = 4096
#: Words of an experience as a share of the longest one permitted, and tokens a word of English.
WORDS_USED, TOKENS_A_WORD = 0.7, 1.4
#: The share of lessons that become an experience where they are settled by a model or have to gain.
KEPT = 0.5
#: How far a measured mean may be off, as factors.
BELOW, ABOVE = 0.8, 1.25

ROLLOUTS = ("baseline", "practice", "probe", "gate", "learned")
DISTILL = ("summarize", "advantage", "propose", "consolidate")


class Range(msgspec.Struct, frozen=True):
    """A quantity as the least, the likely and the most."""

    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __sub__(self, other: Range) -> Range:
        return Range(self.low - other.low, self.middle - other.middle, self.high - other.high)

    def __mul__(self, other: Range | float) -> Range:
        by = other if isinstance(other, Range) else Range(other, other, other)
        return Range(self.low * by.low, self.middle * by.middle, self.high * by.high)

    def whole(self) -> Range:
        """The same in whole numbers: the least rounded down, the most rounded up."""
        return Range(math.floor(self.low), round(self.middle), math.ceil(self.high))

    def most(self, bound: float) -> Range:
        """The same, nothing above a bound."""
        return Range(min(self.low, bound), min(self.middle, bound), min(self.high, bound))


def flat(value: float) -> Range:
    """A quantity that is known."""
    return Range(value, value, value)


class Guesses(msgspec.Struct, frozen=True):
    """Everything uncertain.

    `teaching` is the share of groups that teach; `kept` how many experiences there are a group that taught, after
    each step (the last holds for all later ones); `output` the tokens of one answer by phase. The rest is known only
    from a run: by phase `input`, the tokens of one distiller call, `cached`, the share of input tokens that were, and
    `seconds` a call takes; `experiences`, what was learned; `grouped`, whether the endpoint of the rollouts took group
    requests; `source`, the run.
    """

    teaching: Range
    kept: tuple[Range, ...]
    output: dict[str, Range]
    input: dict[str, float] = msgspec.field(default_factory=dict)
    cached: dict[str, float] = msgspec.field(default_factory=dict)
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    experiences: tuple[str, ...] = ()
    grouped: bool | None = None
    source: str | None = None


def guessed(config: Config) -> Guesses:
    """The guesses for a configuration, before anything was measured.

    The likely share of groups that teach is that of success rates of which none is likelier than another:
    (G - 1) / (G + 1); a single rollout teaches when it is wrong, one time in two.
    """
    size = config.practice.group_size
    teaching = (size - 1) / (size + 1) if size > 1 else 0.5
    longest = config.agent.max_tokens or UNBOUNDED
    answer = SCHEMA_ANSWER if config.agent.response_schema is not None else FREE_ANSWER
    lesson = config.distill.experience_words * WORDS_USED * TOKENS_A_WORD + 20
    output = {phase: _output(answer, longest) for phase in ROLLOUTS}
    bound = config.distill.max_tokens
    output |= {"summarize": _output(SUMMARY, bound), "advantage": _output(lesson, bound)}
    output["propose"] = _output(lesson + 15, bound)
    output["consolidate"] = _output(lesson + 15, bound)  # of one operation: how many there are is counted
    practice = config.practice
    settled = practice.propose != "add" or practice.consolidate != "none" or practice.select == "gain"
    return Guesses(Range(0.0, teaching, 1.0), (Range(0.0, KEPT if settled else 1.0, 1.0),), output)


def _output(likely: float, longest: float) -> Range:
    """One answer: an eighth of the guess at least, all that is permitted at most."""
    middle = min(likely, longest)
    return Range(max(middle / 8, 1), middle, longest)


class _Sums:
    """What the calls of one phase came to."""

    def __init__(self) -> None:
        self.calls = self.answers = self.input = self.cached = self.output = 0
        self.seconds = 0.0


def measured(config: Config, run: Path) -> Guesses:
    """The guesses with the means of a run in place of all that its journal can tell; the run may be unfinished.

    Args:
        config: what is estimated.
        run: the run directory.

    Raises:
        ConfigError: there is no run, or none of its calls was completed.
        JournalError: its journal is damaged.
    """
    own = guessed(config)
    sums: dict[str, _Sums] = defaultdict(_Sums)
    practised: set[str] = set()
    taught: set[tuple[int, str]] = set()
    chunks: Counter[bool] = Counter()
    with JournalReader(journal_path(run)) as reader:
        old = run_config(read_header(reader.header, run), run)
        candidates = old.practice.candidates if old.practice.select == "gain" else 1
        for call in reader.calls():
            phase = phase_of(call.key)
            if call.state is not CallStatus.COMPLETED or phase is None:
                continue
            answers = _answers(call.key, candidates if phase == "advantage" else 1)
            if phase in ROLLOUTS and answers is not None:
                chunks[answers > 1] += 1
            parts = call.key.split("/")
            if phase == "practice":
                practised.add("/".join(parts[1:3]))
            elif phase == "advantage":
                taught.add((int(parts[1]), parts[2]))
            found = sums[phase]
            found.calls += 1
            found.answers += answers or 1
            found.input += call.usage.input_tokens
            found.cached += call.usage.cached_tokens
            found.output += call.usage.output_tokens
            found.seconds += (call.finished_at or call.intended_at) - call.intended_at
        steps = list(reader.records("step", StepRecord).values())
        libraries = {step.step: stored_library(reader, step) for step in steps}
    if not sums:
        raise ConfigError(f"--from {run}: no call of this run was completed, so there is nothing to go by.")
    teaching = _around(len(taught) / len(practised)).most(1.0) if practised else own.teaching
    kept = []
    for step, library in libraries.items():
        groups = sum(number <= step for number, _ in taught)
        kept.append(_around(len(library) / max(groups, 1)).most(1.0))
    output = dict(own.output)
    for phase in (*ROLLOUTS, *DISTILL):
        known = sums.get(phase) or (sums.get("practice") if phase in ROLLOUTS else None)
        if known is not None:
            longest = output[phase].high
            output[phase] = _around(known.output / known.answers).most(longest)
    return msgspec.structs.replace(
        own,
        teaching=teaching,
        kept=tuple(kept) or own.kept,
        output=output,
        input={phase: sums[phase].input / sums[phase].calls for phase in DISTILL if phase in sums},
        cached={phase: found.cached / max(found.input, 1) for phase, found in sums.items()},
        seconds={phase: found.seconds / found.calls for phase, found in sums.items()},
        experiences=tuple(
            entry.text for library in list(libraries.values())[-1:] for entry in library.entries
        ),
        grouped=None if not chunks else chunks[True] > 0,
        source=str(run),
    )


def phase_of(key: str) -> str | None:
    """The phase that a logical key belongs to; None for one that no estimate knows."""
    parts = key.split("/")
    if parts[0] == "distill" and len(parts) > 3:
        return {"summary": "summarize"}.get(parts[3], parts[3])
    return parts[0] if parts[0] in (*ROLLOUTS, "consolidate") else None


def _answers(key: str, asked: int) -> int | None:
    """How many answers a call asked for; None for a turn after the first, which is nobody's group."""
    if key.startswith("distill/"):
        return asked if key.endswith("/advantage") else 1
    chunk = re.search(r"/\d+x(\d+)$", key)
    return int(chunk[1]) if chunk else None


def _around(mean: float) -> Range:
    return Range(mean * BELOW, mean, mean * ABOVE)
