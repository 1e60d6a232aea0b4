"""Reading runs and libraries for people: which library a path means, what steps did, what changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from tfgrpo.distill.consolidate import describe
from tfgrpo.engine.records import StepRecord, StoredLibrary, library_key, stored_library
from tfgrpo.errors import ConfigError
from tfgrpo.journal import JournalReader
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.rundir import RUN, START, Header, header_from, journal_path
from tfgrpo.types import Role, Usage

S = TypeVar("S", bound=msgspec.Struct)


class ReadStore:
    """The reading half of a store over the journal of a run that nobody writes to (implements `report.Source`).

    Its methods read the file where they are called: for commands that do nothing else meanwhile.
    """

    def __init__(self, reader: JournalReader) -> None:
        self.reader = reader

    async def get(self, kind: str, key: Key, type: type[S]) -> S | None:  # noqa: A002
        """One record, or None."""
        return self.reader.get(kind, key, type)

    async def records(self, kind: str, type: type[S], under: str = "") -> AsyncIterator[tuple[Key, S]]:  # noqa: A002
        """The records of one kind in the order of their keys."""
        for item in self.reader.iterate(kind, type, under):
            yield item

    def usage(self) -> Mapping[Role, Usage]:
        """The cost of every finished attempt, by role."""
        return self.reader.usage_by_role()

    def faults(self) -> Mapping[str, int]:
        """How many attempts failed, by the name of the error."""
        return self.reader.faults_by_kind()

    def open_intents(self) -> int:
        """How many attempts have no outcome."""
        return self.reader.open_intents()


@contextmanager
def open_reader(directory: Path) -> Iterator[ReadStore]:
    """Open the journal of a run directory for reading.

    Raises:
        ConfigError: the path is no run directory.
        JournalError: the journal is damaged.
    """
    with JournalReader(journal_path(directory)) as reader:
        yield ReadStore(reader)


def header_of(reader: JournalReader, directory: Path) -> Header:
    """The header of a run: a record, or what the journal was made with, as it is in version 2.

    Raises:
        ConfigError: the journal holds no run.
        JournalError: it is not one of ours.
    """
    found = reader.get("run", RUN, Header)
    if found is not None:
        return found
    if not reader.header:
        raise ConfigError(f"{directory}: holds no run, but the effects of an engine.")
    return header_from(reader.header.get(RUN.text, reader.header), directory)


def library_of(source: Path) -> ExperienceLibrary:
    """The library a path means: a library file, or the newest library of a run directory.

    Raises:
        ConfigError: the path is neither.
        LibraryError: the file is damaged.
    """
    if not source.is_dir():
        return ExperienceLibrary.load(source)
    with JournalReader(journal_path(source)) as reader:
        step = None
        for _, record in reader.iterate("step", StepRecord):
            step = record
        if step is None:
            return ExperienceLibrary.load(source / START)
        return stored_library(reader.get("library", library_key(step.digest), StoredLibrary), step)


def log_of(run: Path) -> list[StepRecord]:
    """The closed steps of a run, in order.

    Raises:
        ConfigError: the path is no run directory.
    """
    with JournalReader(journal_path(run)) as reader:
        return [record for _, record in reader.iterate("step", StepRecord)]


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
