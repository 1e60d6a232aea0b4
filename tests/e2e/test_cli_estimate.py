"""`tfgrpo practice --estimate`: nothing is sent, nothing is written, and it reads well at every width."""

from __future__ import annotations

import io
import json
from pathlib import Path

import anyio
import pytest
from rich.console import Console
from tests.support.world import make_config, models, write_tasks

import tfgrpo
from tfgrpo.cli import main
from tfgrpo.cli.estimate import show
from tfgrpo.forecast.estimate import Estimate
from tfgrpo.run.forecasting import estimate_practice
from tfgrpo.testing import LoopbackServer, ScriptedModel
from tfgrpo.testing.scripts import practice_script, tickets

CONFIG = """
[model]
base_url = "{base_url}"
name = "scripted"
api_key_env = "TFGRPO_NO_SUCH_KEY"
[model.price]
input = 0.27
cached_input = 0.07
output = 1.10
[data]
practice = "practice.jsonl"
held_out = "held_out.jsonl"
[limits]
requests_per_minute = 60
[budget]
usd = 0.001
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tasks(tmp_path / "practice.jsonl", 6)
    write_tasks(tmp_path / "held_out.jsonl", 4, first=20_000)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_nothing_is_sent_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LoopbackServer(tickets) as server:
        (folder / "config.toml").write_text(CONFIG.format(base_url=server.base_url), "utf-8")
        monkeypatch.chdir(folder)
        before = files(folder)
        arguments = ["practice", "--estimate", "config.toml"]
        # In a thread: the command line runs an event loop of its own. A key is not needed either.
        assert await anyio.to_thread.run_sync(main, arguments) == 0
        assert await anyio.to_thread.run_sync(main, [*arguments, "--json"]) == 0
        assert server.counts.requests == 0
    assert files(folder) == before
    captured = capsys.readouterr()
    assert captured.err == ""
    text, start, document = captured.out.partition("{")
    assert "limits.requests_per_minute = 60 binds" in " ".join(text.split())
    assert "warning: budget.usd" in text
    found = json.loads(start + document)
    phases = {line["phase"]: line for line in found["lines"]}
    assert phases["baseline"]["calls"] == {
        "low": 4,
        "middle": 4,
        "high": 18,
    }  # n = 4, or one by one, and reruns
    assert found["total"]["usd"]["low"] <= found["total"]["usd"]["middle"] <= found["total"]["usd"]["high"]
    assert found["source"] is None


def test_a_run_takes_the_place_of_the_guesses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(tmp_path)

    async def practise() -> None:
        model = ScriptedModel(practice_script())
        await tfgrpo.practice(config, models=models(model), run_dir=tmp_path / "run")

    anyio.run(practise)
    path = str(tmp_path / "config.toml")
    assert main(["practice", "--estimate", path, "--from", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == str(tmp_path / "run")
    assert found["least_seconds"]["middle"] >= 0  # a run knows how long a call takes
    assert [floor["limit"] for floor in found["floors"]] == [
        "limits.requests_per_minute",
        "limits.concurrency",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["practice", "config.toml", "--from", "run"], "--from RUN_DIR goes with --estimate"),
        (["practice", "--estimate", "config.toml", "--from", "nowhere"], "nowhere: is no run directory"),
        (["practice", "--estimate", "nowhere.toml"], "no such configuration file"),
    ],
)
def test_mistakes_are_told(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    (folder / "config.toml").write_text(CONFIG.format(base_url="http://127.0.0.1:9/v1"), "utf-8")
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in " ".join(captured.err.split())


def test_attempts_of_unknown_cost_are_told_as_attempts(tmp_path: Path) -> None:
    class Strange:
        async def attempt(self, scope: tfgrpo.Scope) -> str:
            return scope.task.input

    out = io.StringIO()
    show(estimate_practice(make_config(tmp_path), agent=Strange()), Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert ["practice", *"–––––"] in [line.split() for line in lines]
    text = " ".join(out.getvalue().split())
    assert (
        "attempts, each of an unknown number of calls: baseline 10, practice 18, learned 10, summarize"
        in text
    )
    assert "--from RUN_DIR" in text


@pytest.fixture
def large(tmp_path: Path) -> Estimate:
    """One whose numbers are as long as they get."""
    config = make_config(
        tmp_path,
        practice=300,
        held_out=600,
        practice__epochs=30,
        practice__select="gain",
        practice__consolidate="batch",
        practice__summaries="always",
        limits__requests_per_minute=100,
        budget__tokens=10_000,
        model__price={"input": 200.0, "output": 800.0},
    )
    return estimate_practice(config)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_the_width(large: Estimate, width: int) -> None:
    out = io.StringIO()
    show(large, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    for row in ("baseline", "practice", "probe", "gate", "learned", "summarize", "advantage", "propose"):
        assert len(rows[row]) == 6, rows[row]
    for row in ("consolidate", "likely", "low", "high"):
        assert len(rows[row]) == 6, rows[row]
        assert "…" not in rows[row]
