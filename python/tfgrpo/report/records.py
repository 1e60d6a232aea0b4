"""Everything the report of a run rests on, read from its journal; nothing flows back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfgrpo.config import Config
from tfgrpo.engine.evaluate import Evaluation, stored_evaluation
from tfgrpo.engine.practice import stored_library
from tfgrpo.engine.records import GroupRecord, StepRecord
from tfgrpo.errors import ConfigError
from tfgrpo.journal import JournalReader
from tfgrpo.library import ExperienceLibrary
from tfgrpo.rollout import is_cut_off
from tfgrpo.rundir import START, Header, journal_path, read_header, run_config
from tfgrpo.types import Role, Rollout, Usage


@dataclass(frozen=True)
class RunRecords:
    """A finished run as its journal tells it.

    `sizes` is the number of entries by library version; `rollouts` are without stragglers that were cut off.
    """

    directory: Path
    header: Header
    config: Config
    baseline: Evaluation | None
    learned: Evaluation
    library: ExperienceLibrary
    steps: list[StepRecord]
    groups: list[GroupRecord]
    rollouts: list[Rollout]
    sizes: dict[int, int]
    usage: dict[Role, Usage]
    retries: dict[str, int]
    open_intents: int


def read_records(directory: Path) -> RunRecords:
    """Read a finished run.

    Raises:
        ConfigError: no run there, or it is not finished.
        JournalError: the journal is damaged.
    """
    with JournalReader(journal_path(directory)) as reader:
        header = read_header(reader.header, directory)
        baseline = stored_evaluation(reader, "baseline")
        learned = stored_evaluation(reader, "learned")
        if learned is None or (header.kind == "practice" and baseline is None):
            raise ConfigError(f"{directory}: the run is not finished; go on with: tfgrpo resume {directory}")
        steps = list(reader.records("step", StepRecord).values())
        start = ExperienceLibrary.load(directory / START)
        libraries = [start, *(stored_library(reader, step) for step in steps if step.version > start.version)]
        return RunRecords(
            directory=directory,
            header=header,
            config=run_config(header, directory),
            baseline=baseline,
            learned=learned,
            library=libraries[-1],
            steps=steps,
            groups=list(reader.records("group", GroupRecord).values()),
            rollouts=[r for r in reader.records("rollout", Rollout).values() if not is_cut_off(r)],
            sizes={library.version: len(library) for library in libraries},
            usage=reader.usage_by_role(),
            retries=reader.faults_by_kind(),
            open_intents=reader.open_intents(),
        )
