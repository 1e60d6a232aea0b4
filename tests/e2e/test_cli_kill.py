"""`kill -9` at random moments, then `tfgrpo resume`: the server's own counts prove that nothing is paid twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.world import write_tasks

from tfgrpo.journal import JournalReader
from tfgrpo.testing.loopback import read_log
from tfgrpo.types import EffectStatus

#: (practice tasks, concurrency, server latency in seconds, seconds of work after which a kill falls)
SIZES = [
    pytest.param(100, 32, 0.1, (0.05, 0.4), id="push"),
    pytest.param(2000, 128, 0.05, (0.3, 1.8), id="2000-tasks"),
]
KILLS = 5


@contextmanager
def loopback(log: Path, latency: float) -> Iterator[str]:
    """A server process of its own; yields its base URL."""
    command = [sys.executable, "-m", "tfgrpo.testing.loopback"]
    command += ["--script", "tfgrpo.testing.scripts:tickets", "--port", "0", "--log", str(log)]
    command += ["--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def write_config(folder: Path, base_url: str, practice: int, concurrency: int) -> Path:
    write_tasks(folder / "practice.jsonl", practice)
    write_tasks(folder / "held_out.jsonl", 40, first=50_000)
    path = folder / "config.toml"
    path.write_text(
        f'[model]\nbase_url = "{base_url}"\nname = "scripted"\n'
        '[data]\npractice = "practice.jsonl"\nheld_out = "held_out.jsonl"\n'
        f"[practice]\nepochs = 1\nbatch_size = {practice // 4}\ngroup_size = 5\n"
        f"[evaluation]\nsamples = 2\n[limits]\nconcurrency = {concurrency}\n",
        encoding="utf-8",
    )
    return path


def tfgrpo(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tfgrpo", *map(str, arguments)]


def finished(command: list[str]) -> dict[str, object]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def kill_at_work(command: list[str], directory: Path, served: Path, seconds: float) -> bool:
    """Start an engine, let it work for some seconds after its first new call, kill it; whether it was alive."""
    before = served.stat().st_size
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as engine:
        while engine.poll() is None and served.stat().st_size == before:
            time.sleep(0.005)
        time.sleep(seconds)
        alive = engine.poll() is None
        os.kill(engine.pid, signal.SIGKILL)
    assert (directory / "journal.db").exists()
    return alive


@pytest.mark.parametrize(("practice", "concurrency", "latency", "moments"), SIZES)
def test_killed_five_times_nothing_is_lost_or_paid_twice(
    tmp_path: Path, practice: int, concurrency: int, latency: float, moments: tuple[float, float]
) -> None:
    draw = random.Random(practice)
    log = tmp_path / "served.jsonl"
    with loopback(log, latency) as base_url:
        config = write_config(tmp_path, base_url, practice, concurrency)
        whole = finished(tfgrpo("practice", config, "--run-dir", tmp_path / "whole", "--json"))
        paid_once = Counter(entry.key for entry in read_log(log))
        assert set(paid_once.values()) == {1}
        effects = completed_in(tmp_path / "whole")
        assert effects.total() == sum(entry.n for entry in read_log(log))
        log.write_bytes(b"")

        killed = tmp_path / "killed"
        command = tfgrpo("practice", config, "--run-dir", killed)
        for _ in range(KILLS):
            assert kill_at_work(command, killed, log, draw.uniform(*moments)), "it ended before the kill"
            command = tfgrpo("resume", killed)
        resumed = finished(tfgrpo("resume", killed, "--json"))
    assert resumed["library"] == whole["library"]
    assert resumed["difference"] == whole["difference"]

    completed = completed_in(killed)
    assert set(completed.values()) == {1}
    assert completed == effects, "the same effects, no more and no less"
    with JournalReader(killed / "journal.db") as reader:
        calls = list(reader.calls())
        lost = reader.open_intents()
    open_intents = Counter(call.key.text for call in calls if call.state is EffectStatus.OPEN)
    assert open_intents.total() == lost
    assert not [call for call in calls if call.state is EffectStatus.FAILED]
    # Every answer is either a completed effect's or belongs to an attempt that was in flight at a kill.
    served = read_log(log)
    for key, count in Counter(entry.key for entry in served).items():
        assert completed[key] == 1, key
        assert count <= completed[key] + open_intents[key], key
    assert completed.total() <= sum(entry.n for entry in served) <= completed.total() + lost


def completed_in(directory: Path) -> Counter[str]:
    """How often each effect of a run was completed."""
    with JournalReader(directory / "journal.db") as reader:
        return Counter(call.key.text for call in reader.calls() if call.state is EffectStatus.COMPLETED)
