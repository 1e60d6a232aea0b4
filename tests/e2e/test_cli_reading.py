"""The commands that read runs: show, log, diff, compare, report, evaluate; for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.cli import main
from tfgrpo.testing import ScriptedModel
from tfgrpo.testing.scripts import practice_script

Read = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose library helps and one whose library does nothing, on the same held-out tasks."""
    folders = []
    for gain in (0.6, 0.0):
        folder = tmp_path_factory.mktemp("run")
        config = make_config(folder, practice=6, held_out=20)
        model = ScriptedModel(practice_script(base=0.3, gain=gain))

        async def practise(
            config: tfgrpo.Config = config, model: ScriptedModel = model, folder: Path = folder
        ) -> None:
            await tfgrpo.practice(config, models=models(model), run_dir=folder / "run")

        anyio.run(practise)
        folders.append(folder / "run")
    return folders[0], folders[1]


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Read:
    def run(*arguments: str | Path) -> tuple[int, str]:
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().out

    return run


def test_library_show(runs: tuple[Path, Path], read: Read) -> None:
    code, text = read("library", "show", runs[0])
    assert code == 0
    assert "[E1-" in text
    shown = json.loads(read("library", "show", runs[0], "--json")[1])
    assert shown["format"] == "tfgrpo-library"
    newest = max((runs[0] / "library").glob("v*.json"))
    assert json.loads(read("library", "show", newest, "--json")[1]) == shown


def test_library_log_names_every_drop(runs: tuple[Path, Path], read: Read) -> None:
    code, text = read("library", "log", runs[0])
    assert code == 0
    steps = json.loads(read("library", "log", runs[0], "--json")[1])
    assert [step["step"] for step in steps] == [1, 2]
    drops = sum(len(step.get("dropped", [])) + len(step["report"].get("dropped", [])) for step in steps)
    assert text.count("dropped:") == drops


def test_library_diff(runs: tuple[Path, Path], read: Read) -> None:
    start = runs[0] / "library" / "v0000.json"
    code, text = read("library", "diff", start, runs[0])
    assert code == 0
    size = len(tfgrpo.ExperienceLibrary.load(max((runs[0] / "library").glob("v*.json"))))
    assert text.count("+ [E") == size
    assert read("library", "diff", runs[0], runs[0])[1] == "no difference\n"


def test_compare_is_paired_and_mirrors(runs: tuple[Path, Path], read: Read) -> None:
    forth = json.loads(read("compare", runs[1], runs[0], "--json")[1])
    back = json.loads(read("compare", runs[0], runs[1], "--json")[1])
    assert forth["tasks"] == 20
    assert forth["difference"] == -back["difference"] > 0
    assert forth["p_value"] == back["p_value"]


def test_report_writes_the_same_files_again(runs: tuple[Path, Path], read: Read) -> None:
    result = (runs[0] / "result.json").read_bytes()
    (runs[0] / "result.json").unlink()
    (runs[0] / "report.html").unlink()
    code, text = read("report", runs[0], "--json")
    assert code == 0
    assert (runs[0] / "result.json").read_bytes() == result == text.encode()
    assert (runs[0] / "report.html").exists()


def test_models_list(read: Read) -> None:
    assert {model["name"] for model in json.loads(read("models", "list", "--json")[1])} >= {"smollm2-135m"}
