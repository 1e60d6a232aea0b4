"""The page of a real (scripted) run: what is taken from the journal, and what when the data has gone."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import jsonschema
import pytest
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.dataset import load_dataset
from tfgrpo.report.result import decode
from tfgrpo.run.api import write_report
from tfgrpo.testing import ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script

SCHEMA = Path(__file__).parents[3] / "docs" / "reference" / "result.schema.json"


@pytest.fixture
def run(tmp_path: Path) -> tfgrpo.Run:
    config = make_config(tmp_path, practice=8, practice__epochs=2)
    model = ScriptedModel(practice_script())

    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(config, models=models(model), run_dir=tmp_path / "run")

    return VirtualClock().run(main)


def report(run: tfgrpo.Run) -> str:
    return unescape((run.directory / "report.html").read_text("utf-8"))


def test_result_json_is_the_result_and_follows_the_schema(run: tfgrpo.Run) -> None:
    body = (run.directory / "result.json").read_bytes()
    assert decode(body) == run.result
    jsonschema.validate(json.loads(body), json.loads(SCHEMA.read_bytes()))


def test_the_page_shows_every_task_and_experience(run: tfgrpo.Run, tmp_path: Path) -> None:
    text = report(run)
    for task in load_dataset(next(tmp_path.glob("*held*.jsonl")), key="data.held_out").tasks:
        assert f"<summary>{task.id}</summary>\n<pre>{task.input}</pre>" in text
        assert f"Truth: <b>{task.truth}</b>" in text
    for entry in run.library.entries:
        assert f'<p>{entry.text}</p>\n<div class="tag"><b>{entry.id}</b>' in text
    assert run.result.config_hash in text
    assert 'name = "' in text[text.index("as resolved") :]


def test_the_page_is_the_same_again_and_does_without_the_data(run: tfgrpo.Run, tmp_path: Path) -> None:
    before = report(run)
    assert write_report(run.directory).result == run.result
    assert report(run) == before
    next(tmp_path.glob("*held*.jsonl")).unlink()
    write_report(run.directory)
    assert report(run).count("Truth: <b>") == 0
    assert report(run).count("<summary>") == before.count("<summary>")
