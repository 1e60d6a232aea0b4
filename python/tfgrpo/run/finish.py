"""The end of a run: its result and its report, made from what the store holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from tfgrpo.config import Config
from tfgrpo.dataset import Dataset, load_dataset
from tfgrpo.errors import ConfigError, DataError
from tfgrpo.library import ExperienceLibrary
from tfgrpo.report.build import Report, build_report
from tfgrpo.report.comparison import Comparison
from tfgrpo.report.records import ModelTerms, Source, Terms
from tfgrpo.report.result import Result, encode
from tfgrpo.run.inputs import Inputs, run_config
from tfgrpo.run.providers import price_of
from tfgrpo.run.reading import header_of, open_reader
from tfgrpo.rundir import START, Header
from tfgrpo.types import Role

#: The arms of each kind of run, in order: every later one is compared with the first.
ARMS = {"practice": ("baseline", "learned"), "evaluation": ("learned",)}


@dataclass(frozen=True)
class Run:
    """A finished run: where it lies, what it learned, and whether that helps.

    `comparison` is None for an evaluation, which has one arm only; `directory` is None where nothing was written.
    """

    directory: Path | None
    library: ExperienceLibrary
    comparison: Comparison | None
    result: Result


async def finish(store: Source, header: Header, inputs: Inputs, directory: Path | None) -> Run:
    """Make the result of a run that has ended; writes `result.json` and `report.html` where there is a directory.

    Raises:
        JournalError: the store cannot be read.
        ConfigError: the report cannot be written.

    Cancellation: propagates; the report can be made again by `write_report`.
    """
    terms = terms_of(header, inputs.config, inputs.held_out, directory or "the store")
    report = await build_report(store, terms, inputs.library)
    if directory is not None:
        await anyio.to_thread.run_sync(_write, report, directory)
    return Run(directory, report.records.library, report.comparison, report.result)


def write_report(run_dir: str | Path) -> Run:
    """Build the result of a finished run from its journal; writes `result.json` and `report.html`.

    Raises:
        ConfigError: no run there, or it is not finished.
        JournalError: the journal is damaged.
    """
    directory = Path(run_dir)
    report = read_report(directory)
    _write(report, directory)
    return Run(directory, report.records.library, report.comparison, report.result)


def read_report(directory: Path) -> Report:
    """Build the result of a finished run from its journal; nothing is written.

    Raises:
        ConfigError: no run there, or it is not finished.
        JournalError: the journal is damaged.
    """
    with open_reader(directory) as source:
        header = header_of(source.reader, directory)
        config = run_config(header, directory)
        try:
            held_out = load_dataset(config.data.held_out, key="data.held_out")
        except DataError:  # it has moved since; its texts are shown where they are known
            held_out = None
        if held_out is not None and held_out.digest != header.held_out:
            held_out = None
        terms = terms_of(header, config, held_out, directory)
        start = ExperienceLibrary.load(directory / START)
        return anyio.run(build_report, source, terms, start)


def terms_of(header: Header, config: Config, held_out: Dataset | None, place: object) -> Terms:
    """The terms of a run, as its report needs them."""
    endpoints = {role: config.model.role(role) for role in Role}
    tasks = () if held_out is None else held_out.tasks
    return Terms(
        kind=header.kind,
        name=config.run.name,
        arms=ARMS[header.kind],
        samples=config.evaluation.samples,
        confidence=config.evaluation.confidence,
        seed=config.run.seed,
        library_tokens=config.practice.library_tokens,
        models={
            role: ModelTerms(endpoint.label, price_of(endpoint.price), endpoint.local is not None)
            for role, endpoint in endpoints.items()
        },
        settings=header.config,
        config_hash=header.config_hash,
        data={"held_out": header.held_out}
        | ({"practice": header.practice} if header.practice is not None else {}),
        started=header.started,
        truths={task.id: task.truth for task in tasks},
        inputs={task.id: task.input for task in tasks},
        place=str(place),
    )


def _write(report: Report, directory: Path) -> None:
    from tfgrpo.report.html import render  # brings matplotlib: a second that only a finished run spends

    try:
        _replace(directory / "result.json", encode(report.result))
        _replace(directory / "report.html", render(report.result, report.records).encode())
    except OSError as error:
        raise ConfigError(f"{directory}: the report cannot be written: {error.strerror}.") from None


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)
