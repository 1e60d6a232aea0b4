"""What the engine's fault tests share: the warm process, a server, and an undisturbed run to compare with."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.engines import Ledger, Server, Stable, outcome, server, stable
from tests.support.world import write_tasks

from tfgrpo.journal import JournalReader
from tfgrpo.types import EffectStatus


@dataclass(frozen=True)
class World:
    """A small practice run over HTTP: where it is configured, and what it comes to when nothing happens."""

    stable: Stable
    server: Server
    config: Path
    digest: str
    difference: Any
    paid: Counter[str]
    effects: frozenset[str]
    seconds: float

    def practice(self, directory: Path) -> tuple[object, ...]:
        """The command line that starts a run there, or goes on with it."""
        if (directory / "journal.db").exists():
            return ("resume", directory)
        return ("practice", self.config, "--run-dir", directory)

    def finish(self, ledger: Ledger) -> int:
        """Run to the end and check the whole law; how many answers were extra."""
        self.stable.done(*self.practice(ledger.directory))
        assert outcome(ledger.directory) == (self.digest, self.difference)
        return ledger.settled(self.effects)


def write_config(folder: Path, base_url: str, **more: str) -> Path:
    """A run of 14 calls: two steps, two evaluations; `more` adds lines to a section."""
    write_tasks(folder / "practice.jsonl", 4)
    write_tasks(folder / "held_out.jsonl", 2, first=50_000)
    sections = {
        "model": f'base_url = "{base_url}"\nname = "scripted"\n',
        "data": 'practice = "practice.jsonl"\nheld_out = "held_out.jsonl"\n',
        "practice": "epochs = 1\nbatch_size = 2\ngroup_size = 3\n",
        "evaluation": "samples = 1\n",
        "limits": "",
    }
    limits = {"concurrency = 4\n"} if "limits" not in more else set()
    sections["limits"] = "".join(limits)
    for section, lines in more.items():
        sections[section] = sections.get(section, "") + lines + "\n"
    path = folder / "config.toml"
    path.write_text("".join(f"[{name}]\n{lines}" for name, lines in sections.items()), encoding="utf-8")
    return path


def undisturbed(stable: Stable, server: Server, config: Path, directory: Path) -> World:
    """Run once without faults, and keep what that came to."""
    before = server.position()
    engine = stable.start("practice", config, "--run-dir", directory)
    ended = engine.wait()
    assert ended.code == 0, engine.said()
    served = server.served(before, server.position())
    paid = Counter(entry.key for entry in served)
    assert set(paid.values()) == {1}
    assert len(paid) > 10
    with JournalReader(directory / "journal.db") as reader:
        calls = list(reader.calls())
    assert {call.state for call in calls} == {EffectStatus.COMPLETED}
    effects = frozenset(call.key.text for call in calls)
    assert len(effects) == len(calls) == sum(entry.n for entry in served)
    return World(stable, server, config, *outcome(directory), paid, effects, ended.seconds)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stable]:
    """The warm process."""
    with stable(tmp_path_factory.mktemp("warm")) as opened:
        yield opened


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder in memory where there is one: a killed process does not care what a disk has, only the clock does."""
    memory = Path("/dev/shm")  # noqa: S108 - that very place is meant
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tfgrpo-", dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def world(warm: Stable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The run of `write_config` against a server that answers at once."""
    folder = tmp_path_factory.mktemp("world")
    with server(folder / "served.jsonl") as opened:
        config = write_config(folder, opened.base_url)
        yield undisturbed(warm, opened, config, folder / "whole")
