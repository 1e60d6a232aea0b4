"""Reading runs and libraries for people: which library a path means, what steps did, what changed."""

from __future__ import annotations

from pathlib import Path

from tfgrpo.distill.consolidate import describe
from tfgrpo.engine.practice import stored_library
from tfgrpo.engine.records import StepRecord
from tfgrpo.errors import ConfigError
from tfgrpo.journal import JournalReader
from tfgrpo.library import ExperienceLibrary, LibraryDiff
from tfgrpo.report.comparison import Comparison
from tfgrpo.report.comparison import compare as compare_arms
from tfgrpo.report.records import read_records
from tfgrpo.rundir import START, journal_path


def library_of(source: Path) -> ExperienceLibrary:
    """The library a path means: a library file, or the newest library of a run directory.

    Raises:
        ConfigError: the path is neither.
        LibraryError: the file is damaged.
    """
    if not source.is_dir():
        return ExperienceLibrary.load(source)
    with JournalReader(journal_path(source)) as reader:
        steps = list(reader.records("step", StepRecord).values())
        if not steps:
            return ExperienceLibrary.load(source / START)
        return stored_library(reader, steps[-1])


def log_of(run: Path) -> list[StepRecord]:
    """The closed steps of a run, in order.

    Raises:
        ConfigError: the path is no run directory.
    """
    with JournalReader(journal_path(run)) as reader:
        return list(reader.records("step", StepRecord).values())


def comparison_of(run_a: Path, run_b: Path) -> Comparison:
    """The paired comparison of two runs' last evaluations, over the tasks they share.

    Raises:
        ConfigError: a run has no finished evaluation, or they share no task.
    """
    a, b = read_records(run_a), read_records(run_b)
    first, second = a.learned.rewards(), b.learned.rewards()
    shared = [task_id for task_id in first if task_id in second]
    if not shared:
        raise ConfigError(f"{run_a} and {run_b} share no held-out task: there is nothing to compare.")
    return compare_arms(
        {task_id: first[task_id] for task_id in shared},
        {task_id: second[task_id] for task_id in shared},
        samples=min(a.config.evaluation.samples, b.config.evaluation.samples),
        confidence=a.config.evaluation.confidence,
    )


def entries_text(library: ExperienceLibrary) -> str:
    """A library as text: its version, then one experience a line."""
    head = f"version {library.version}, {len(library)} experiences, digest {library.digest[:12]}"
    lines = [f"[{entry.id}] {entry.text}  ({', '.join(entry.sources)})" for entry in library.entries]
    return "\n".join([head, *lines])


def log_text(steps: list[StepRecord]) -> str:
    """The steps of a run as text."""
    if not steps:
        return "no step is closed yet"
    lines: list[str] = []
    for record in steps:
        report = record.report
        lines.append(
            f"step {record.step} (epoch {record.epoch}, {len(record.task_ids)} tasks): {record.chosen} library, "
            f"version {record.version}: {len(report.added)} added, {len(report.modified)} modified, "
            f"{len(report.deleted)} deleted, {len(report.kept)} kept"
        )
        lines += [f"  gate: {arm.name} {arm.mean:.3f} over {arm.rollouts} rollouts" for arm in record.gate]
        for drop in (*report.dropped, *record.dropped):
            lines.append(f"  dropped: {describe(drop.operation)} ({drop.reason})")
        if record.fault is not None:
            lines.append(f"  fault: {record.fault.error}: {record.fault.message}")
    return "\n".join(lines)


def diff_text(difference: LibraryDiff) -> str:
    """A difference as text: + added, - deleted, ~ modified."""
    lines = [f"+ [{ident}] {text}" for ident, text in difference.added.items()]
    lines += [f"- [{ident}] {text}" for ident, text in difference.deleted.items()]
    for ident, (before, after) in difference.modified.items():
        lines += [f"~ [{ident}] {before}", f"  becomes {after}"]
    return "\n".join(lines) or "no difference"
