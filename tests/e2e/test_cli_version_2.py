"""A run directory of the version before: every command that reads it works, and resuming it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tfgrpo.cli import main

GOLDEN = Path(__file__).parents[1] / "golden" / "run-version-2"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy, since a report is written beside the journal."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "run"))


def out(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out


def test_its_library_is_shown_and_its_steps_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "version 1, 3 experiences" in out(capsys, "library", "show", run)
    assert len(json.loads(out(capsys, "library", "show", run, "--json"))["entries"]) == 3
    told = out(capsys, "library", "log", run)
    assert "step 1 (epoch 1, 4 tasks): proposed library, version 1: 3 added" in told
    assert "gate: old 0.500 over 2 rollouts" in told


def test_it_is_reported_as_runs_are_today(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(out(capsys, "report", run, "--json"))
    assert result["format_version"] == 2
    assert {name: arm["mean"] for name, arm in result["arms"].items()} == {"baseline": 0.5, "learned": 1.0}
    assert [(one["arm"], one["against"]) for one in result["comparisons"]] == [("learned", "baseline")]
    assert result["groups"] == {"mixed": 3, "uniform": 1, "undergraded": 0}
    assert result["usage"]["total"]["calls"] == 40
    assert result["open_intents"] == 0
    assert (run / "report.html").exists()


def test_it_is_compared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(out(capsys, "compare", run, run, "--json"))["difference"] == 0


def test_it_is_not_resumed_and_not_changed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "journal.db").read_bytes()
    assert main(["resume", str(run)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    message = " ".join(captured.err.split())
    assert "was written by an earlier version of tfgrpo (schema version 2)" in message
    assert "Resume it with the version of tfgrpo that wrote it, or start a new run." in message
    assert "Traceback" not in message
    assert (run / "journal.db").read_bytes() == before
