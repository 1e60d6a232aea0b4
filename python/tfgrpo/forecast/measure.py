"""The means of a run in place of guesses: the cost of an attempt, how many groups taught, and what was kept of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import msgspec

from tfgrpo.engine.plan import Method
from tfgrpo.engine.records import StepRecord, StoredLibrary, library_key, stored_library
from tfgrpo.forecast.guesses import ATTEMPTS, QUESTIONS, Cost, Guesses
from tfgrpo.forecast.ranges import Range, around, flat
from tfgrpo.journal import CallSummary, JournalReader
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import EffectKind, EffectStatus, Role

#: The names of the distiller's questions in keys, where they are not those of the phases.
NAMES = {"summary": "summarize"}


class Ended(msgspec.Struct):
    """The little of a finished attempt that has to be read to know that it is one."""

    index: int = 0


class Seen:
    """The calls of one phase, added up."""

    def __init__(self) -> None:
        self.asks = self.requests = self.answers = self.input = self.cached = self.output = 0
        self.seconds = self.entries = 0.0
        self.attempts = 0
        self.groups: set[str] = set()

    def ended(self, key: Key) -> None:
        """Count an attempt that has its terminal record."""
        self.attempts += 1
        self.groups.add(key.group.text)

    def add(self, call: CallSummary, answers: int, entries: float) -> None:
        """Count a completed call."""
        usage = call.usage
        self.asks += 1
        self.requests += usage.calls
        self.answers += answers
        self.input += usage.input_tokens
        self.cached += usage.cached_tokens
        self.output += usage.output_tokens
        self.entries += entries * usage.calls
        if usage.calls:  # the others rode along
            self.seconds += (call.finished_at or call.intended_at) - call.intended_at

    def cost(self, longest: float) -> Cost:
        """The cost of one attempt, or of one question where there are no attempts; no answer is longer."""
        requests = max(self.requests, 1)
        output = around(self.output / max(self.answers, 1)).most(longest)
        asks, together = flat(1), None
        if self.attempts:
            mean = self.asks / self.attempts
            asks = flat(mean) if self.asks % self.attempts == 0 else around(mean)
            if siblings := self.attempts - len(self.groups):
                together = (self.asks - self.requests) / siblings
        return Cost(
            output=output,
            asks=asks,
            input=self.input / requests,
            entries=self.entries / requests,
            cached=self.cached / max(self.input, 1),
            seconds=self.seconds / requests,
            together=None if together is None else min(max(together, 0.0), 1.0),
        )


def measured(
    own: Guesses, reader: JournalReader, method: Method, start: ExperienceLibrary, source: str
) -> Guesses | None:
    """Put the means of a run in place of all guesses that its journal can tell; the run may be unfinished.

    Args:
        own: the guesses.
        reader: of the run's journal.
        method: of that run.
        start: the library that it began with.
        source: the name of the run.

    Returns:
        None where no call was completed.

    Raises:
        JournalError: the journal is damaged.
    """
    libraries = {0: start} | {
        closed.step: stored_library(reader.get("library", library_key(closed.digest), StoredLibrary), closed)
        for _, closed in reader.iterate("step", StepRecord)
    }
    phases: dict[str, Seen] = defaultdict(Seen)
    finished: set[str] = set()
    for key, _ in reader.iterate("rollout", Ended):
        finished.add(key.text)
        phases[key.phase].ended(key)
    judged = Seen()
    practised: set[Key] = set()
    taught: set[Key] = set()
    for call in reader.calls():
        key = call.key
        phase = phase_of(key)
        if call.state is not EffectStatus.COMPLETED or phase is None or call.kind is EffectKind.TOOL:
            continue
        if key.index is not None and key.owner.text not in finished:
            continue
        if call.role is Role.JUDGE:
            judged.add(call, 1, 0)
            continue
        asked_together = key.inside == ("advantage",)
        phases[phase].add(call, method.lessons if asked_together else 1, _entries(key, libraries, method))
        if phase == "practice":
            practised.add(key.group)
        elif phase == "advantage":
            taught.add(key.group)
    seen = {phase: found for phase, found in phases.items() if found.asks}
    if not seen:
        return None
    return msgspec.structs.replace(
        own,
        teaching=around(len(taught) / len(practised)).most(1.0) if practised else own.teaching,
        kept=tuple(_kept(libraries, taught)) or own.kept,
        costs=_costs(own, seen, judged, len(finished)),
        answer=_answer(own, seen),
        unknown=() if seen.keys() & set(ATTEMPTS) else own.unknown,
        experiences=tuple(entry.text for entry in libraries[max(libraries)].entries),
        source=source,
    )


def phase_of(key: Key) -> str | None:
    """The phase that a call belongs to; None for one that no estimate knows."""
    if key.phase == "distill" and key.inside:
        name = NAMES.get(key.inside[0], key.inside[0])
        return name if name in QUESTIONS else None
    return key.phase if key.index is not None or key.phase == "consolidate" else None


def _entries(key: Key, libraries: Mapping[int, ExperienceLibrary], method: Method) -> float:
    """The number of experiences in the library that an attempt had in its prompt."""
    if key.step is None:
        step = 0 if key.phase == "baseline" else max(libraries)
    elif key.phase == "gate":
        step = key.step - 1 if key.variant == "old" else key.step
    else:
        step = max(key.step - 1 - method.max_staleness, 0)
    step = max(known for known in libraries if known <= step)
    return len(libraries[step]) + (key.phase == "probe")


def _kept(libraries: Mapping[int, ExperienceLibrary], taught: set[Key]) -> list[Range]:
    """The number of experiences a group that had taught, after each step."""
    found = []
    for step in sorted(libraries.keys() - {0}):
        groups = sum((key.step or 0) <= step for key in taught)
        gained = max(len(libraries[step]) - len(libraries[0]), 0)
        found.append(around(gained / max(groups, 1)).most(1.0))
    return found


def _costs(own: Guesses, seen: Mapping[str, Seen], judged: Seen, finished: int) -> dict[str, Cost]:
    """Costs by phase; a phase of attempts that was not seen is taken to be like one that was."""
    costs = dict(own.costs)
    likeness = next((phase for phase in ("practice", *ATTEMPTS) if phase in seen), None)
    for phase in ATTEMPTS:
        if (like := phase if phase in seen else likeness) is not None:
            costs[phase] = seen[like].cost(own.costs[phase].output.high)
    for phase in QUESTIONS:
        if phase in seen:
            costs[phase] = seen[phase].cost(own.costs[phase].output.high)
    if judged.asks:
        a_call = judged.cost(math.inf)
        costs["judge"] = msgspec.structs.replace(a_call, asks=around(judged.requests / max(finished, 1)))
    return costs


def _answer(own: Guesses, seen: Mapping[str, Seen]) -> Range:
    """The length of an attempt as the distiller is shown it: all that it wrote."""
    practised = seen.get("practice")
    if practised is None:
        return own.answer
    return around(practised.output / max(practised.attempts, 1))
