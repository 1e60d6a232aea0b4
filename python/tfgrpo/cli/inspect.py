"""Libraries and comparisons as text for people."""

from __future__ import annotations

from pathlib import Path

from tfgrpo.errors import ConfigError
from tfgrpo.library import ExperienceLibrary, LibraryDiff
from tfgrpo.report.comparison import Comparison
from tfgrpo.report.comparison import compare as compare_arms
from tfgrpo.report.terminal import source_text
from tfgrpo.run.finish import read_report


def comparison_of(run_a: Path, run_b: Path) -> Comparison:
    """The paired comparison of two runs' last arms, over the tasks they share.

    Raises:
        ConfigError: a run has no finished evaluation, or they share no task.
    """
    a, b = read_report(run_a).records, read_report(run_b).records
    first, second = (next(reversed(records.arms.values())).rewards for records in (a, b))
    shared = [task_id for task_id in first if task_id in second]
    if not shared:
        raise ConfigError(f"{run_a} and {run_b} share no held-out task: there is nothing to compare.")
    return compare_arms(
        {task_id: first[task_id] for task_id in shared},
        {task_id: second[task_id] for task_id in shared},
        samples=min(a.terms.samples, b.terms.samples),
        confidence=a.terms.confidence,
    )


def entries_text(library: ExperienceLibrary) -> str:
    """A library as text: its version, then one experience a line."""
    head = f"version {library.version}, {len(library)} experiences, digest {library.digest[:12]}"
    lines = [
        f"[{entry.id}] {entry.text}  ({'; '.join(map(source_text, entry.sources))})"
        for entry in library.entries
    ]
    return "\n".join([head, *lines])


def diff_text(difference: LibraryDiff) -> str:
    """A difference as text: + added, - deleted, ~ modified."""
    lines = [f"+ [{ident}] {text}" for ident, text in difference.added.items()]
    lines += [f"- [{ident}] {text}" for ident, text in difference.deleted.items()]
    for ident, (before, after) in difference.modified.items():
        lines += [f"~ [{ident}] {before}", f"  becomes {after}"]
    return "\n".join(lines) or "no difference"
