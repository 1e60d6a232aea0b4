"""A stranger's agent is killed twenty times and pays nothing twice: the server's own log is the witness."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.support.engines import server
from tests.support.world import write_tasks

import tfgrpo
from tfgrpo.journal import JournalReader

KILLS = 20


@pytest.mark.parametrize("group_requests", ["auto", pytest.param("never", marks=pytest.mark.nightly)])
def test_killed_twenty_times_nothing_is_paid_twice(tmp_path: Path, group_requests: str) -> None:
    write_tasks(tmp_path / "practice.jsonl", 30)
    write_tasks(tmp_path / "held_out.jsonl", 12, first=50_000)
    with server(tmp_path / "served.jsonl", "--latency", "0.05") as provider:
        (tmp_path / "config.toml").write_text(
            f'[model]\nbase_url = "{provider.base_url}"\nname = "scripted"\n'
            f'[expert.model]\ngroup_requests = "{group_requests}"\n'
            '[data]\npractice = "practice.jsonl"\nheld_out = "held_out.jsonl"\n'
            "[practice]\nepochs = 2\nbatch_size = 10\ngroup_size = 4\n"
            "[evaluation]\nsamples = 2\n[limits]\nconcurrency = 8\n",
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "tests.guests.killed", str(tmp_path), str(KILLS), "7"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr[-3000:]
        served = provider.served()
    assert json.loads(done.stdout)["met"] >= KILLS * 3 // 4, "too few kills met a living engine"

    with JournalReader(tmp_path / "run" / "journal.db") as reader:
        calls = list(reader.calls())
        rollouts = [value for _, value in reader.iterate("rollout", tfgrpo.Rollout)]
    state = {
        name: Counter(c.key.text for c in calls if c.state == name)
        for name in ("completed", "open", "failed")
    }
    assert set(state["completed"].values()) == {1}, "an effect was completed twice"
    unsettled = state["open"].total() + state["failed"].total()
    assert unsettled > 0, "no kill met a call in flight"
    # Every answer that was served belongs to a completed effect, or to an attempt that was in flight at a kill.
    answers = sum(entry.n for entry in served)
    assert state["completed"].total() <= answers <= state["completed"].total() + unsettled
    for key, count in Counter(entry.key for entry in served).items():
        assert count <= state["completed"][key] + state["open"][key] + state["failed"][key], key
    # The request that holds the time was asked anew after a kill: its first answer stays counted, and that is told.
    assert sum(rollout.diverged for rollout in rollouts) > 0
    assert all(sum(m.role == "assistant" for m in r.trajectory.messages) >= 3 for r in rollouts)
