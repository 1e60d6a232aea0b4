"""The whole loop on a real model: the smallest embedded weights, a few tickets, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfgrpo.library import ExperienceLibrary

TICKETS = Path(__file__).parents[2] / "examples" / "tickets"


@pytest.mark.real_model
@pytest.mark.timeout(600)
def test_the_smallest_model_goes_through_the_whole_loop(tmp_path: Path) -> None:
    for name, count in (("practice.jsonl", 6), ("held_out.jsonl", 6)):
        lines = (TICKETS / name).read_text("utf-8").splitlines()[:count]
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
    config = (TICKETS / "config.toml").read_text("utf-8")
    (tmp_path / "config.toml").write_text(config.replace('"default"', '"smollm2-135m"'), "utf-8")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tfgrpo", "practice", str(tmp_path / "config.toml")]
    command += ["--run-dir", str(run), "--json", "--set", "practice.select=none", "--set", "practice.tasks=6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["verdict"] in ("better", "worse", "not distinguishable")
    assert result["tasks"] == 6
    assert result["usage"]["by_role"]["rollout"]["output_tokens"] > 6 * 2 * 2
    assert result["faults"].get("model", 0) == 0
    assert sum(result["groups"].values()) == 6
    newest = max((run / "library").glob("v*.json"))
    assert ExperienceLibrary.load(newest).digest == result["library"]["digest"]
    assert "<svg" in (run / "report.html").read_text("utf-8")
