"""The small world of engine tests: sample tasks, a configuration for them, and what a run in it made durable."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfgrpo.config import Config, load_config
from tfgrpo.engine.records import GroupPlan, GroupRecord, StepRecord, StoredLibrary, stored_library
from tfgrpo.journal import JournalReader
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.testing import ScriptedModel
from tfgrpo.testing.scripts import truth_of, with_key
from tfgrpo.types import Fault, Role, Rollout, Signal


def write_tasks(path: Path, count: int, first: int = 0, *, truth: bool = True) -> None:
    """A data file of sample tasks with keys `first`, `first` + 1, …"""
    lines = []
    for number in range(first, first + count):
        text = with_key(f"Which way at crossing {number}?", number)
        record = {"id": f"t{number}", "input": text}
        if truth:
            record["truth"] = truth_of(text)
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_config(
    folder: Path, *, practice: int = 6, held_out: int = 5, truth: bool = True, **overrides: Any
) -> Config:
    """A configuration over fresh data files; overrides are dotted keys with `__` for the dots."""
    write_tasks(folder / "practice.jsonl", practice, truth=truth)
    write_tasks(folder / "held_out.jsonl", held_out, first=10_000)
    path = folder / "config.toml"
    path.write_text(
        '[model]\nbase_url = "http://127.0.0.1:9/v1"\nname = "scripted"\n'
        '[data]\npractice = "practice.jsonl"\nheld_out = "held_out.jsonl"\n'
        "[practice]\nepochs = 1\nbatch_size = 4\ngroup_size = 3\n"
        "[evaluation]\nsamples = 2\n"
        # A provider whose rate is known: nothing has to be felt out.
        "[limits]\nconcurrency = 16\nrequests_per_minute = 60_000_000\n",
        encoding="utf-8",
    )
    return load_config(path, {key.replace("__", "."): value for key, value in overrides.items()})


def models(model: ScriptedModel) -> dict[Role, ScriptedModel]:
    """One model in every role."""
    return dict.fromkeys(Role, model)


class Recorded:
    """What a practice run made durable, read back from its journal.

    `rollouts`, `groups` and `plans` by key; `steps` in order; `library` is the learned one; `verdict` holds what a
    comparison is made of: the ending and the grade of every evaluated attempt.
    """

    def __init__(self, folder: Path) -> None:
        with JournalReader(folder / "run" / "journal.db") as reader:
            self.rollouts = reader.records("rollout", Rollout)
            self.groups = reader.records("group", GroupRecord)
            self.plans = reader.records("plan", GroupPlan)
            self.steps = sorted(reader.records("step", StepRecord).values(), key=lambda step: step.step)
            stored = reader.records("library", StoredLibrary)
            self.usage = reader.usage_by_role()
            self.open_intents = reader.open_intents()
        self._libraries = {key.variant: value for key, value in stored.items()}
        self.library = self.after(self.steps[-1]) if self.steps else ExperienceLibrary.empty()
        self.verdict = {
            key: (rollout.ending, rollout.reward)
            for key, rollout in self.rollouts.items()
            if key.phase in ("baseline", "learned")
        }
        self.faults = Counter(fault.kind.value for fault in self._faults())

    def after(self, step: StepRecord) -> ExperienceLibrary:
        """The library after a step."""
        return stored_library(self._libraries.get(step.digest), step)

    def of(self, phase: str) -> dict[Key, Rollout]:
        """The rollouts of one phase."""
        return {key: rollout for key, rollout in self.rollouts.items() if key.phase == phase}

    def signals(self) -> Counter[Signal]:
        """How many groups taught what."""
        return Counter(group.signal for group in self.groups.values())

    def _faults(self) -> Iterator[Fault]:
        for rollout in self.rollouts.values():
            if rollout.fault is not None and not rollout.cut_off:
                yield rollout.fault
        for record in (*self.groups.values(), *self.steps):
            fault: Fault | None = getattr(record, "fault", None)
            if fault is not None:
                yield fault
