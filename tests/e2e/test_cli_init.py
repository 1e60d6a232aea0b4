"""`tfgrpo init`: a configuration around the user's data that runs as it is; and `tfgrpo config show`."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.world import write_tasks

from tfgrpo.cli import main
from tfgrpo.config import SETTINGS, Config, load_config
from tfgrpo.testing import LoopbackServer
from tfgrpo.testing.scripts import tickets

ENDPOINT = ["--base-url", "http://127.0.0.1:9/v1", "--model", "scripted"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tasks(tmp_path / "tasks.jsonl", 12)
    write_tasks(tmp_path / "more.jsonl", 4, first=20_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return tmp_path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


async def test_what_it_writes_runs_to_the_end(folder: Path) -> None:
    async with LoopbackServer(tickets) as server:
        command = [sys.executable, "-m", "tfgrpo"]
        endpoint = ["--base-url", server.base_url, "--model", "scripted"]
        init = await anyio.run_process(
            [*command, "init", "mine", "--data", "tasks.jsonl", *endpoint, "--json"], stdin=subprocess.DEVNULL
        )
        assert json.loads(init.stdout) == {
            "config": "mine/config.toml",
            "practice": "mine/practice.jsonl",
            "held_out": "mine/held_out.jsonl",
            "practice_tasks": 8,
            "held_out_tasks": 4,
        }
        estimated = await anyio.run_process([*command, "practice", "--estimate", "mine/config.toml"])
        assert b"likely" in estimated.stdout
        assert server.counts.requests == 0
        done = await anyio.run_process(
            [*command, "practice", "mine/config.toml", "--run-dir", "run", "--json"], check=False
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["tasks"] == 4
    assert result["faults"] == {}
    assert 'recipe = "paper"' in (folder / "run" / "config.toml").read_text("utf-8")


def test_a_file_is_split_by_the_seed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["init", place, "--data", "tasks.jsonl", *ENDPOINT, "--seed", seed]) == 0
    assert "next:  tfgrpo doctor a/config.toml" in capsys.readouterr().out
    held_out = [lines(folder / place / "held_out.jsonl") for place in "abc"]
    assert held_out[0] == held_out[1] != held_out[2]
    whole = lines(folder / "tasks.jsonl")
    for place in "ac":
        parts = [lines(folder / place / f"{name}.jsonl") for name in ("practice", "held_out")]
        assert [len(part) for part in parts] == [8, 4]
        for part in parts:
            assert part == [line for line in whole if line in part]  # untouched, in their order
        assert sorted(parts[0] + parts[1]) == sorted(whole)
    config = load_config(folder / "c" / "config.toml", environment=False)
    assert (config.run.name, config.run.seed, config.recipe) == ("c", 2, "paper")


def test_equal_questions_stay_on_one_side(folder: Path) -> None:
    tasks = [{"id": n, "input": f"question {n // 4}", "truth": "x"} for n in range(12)]
    text = "\ufeff" + "\r\n\n".join(json.dumps(task).replace(", ", ",\r", 1) for task in tasks)
    (folder / "twins.jsonl").write_bytes(text.encode())
    assert main(["init", "mine", "--data", "twins.jsonl", *ENDPOINT]) == 0
    parts = [(folder / "mine" / f"{name}.jsonl").read_bytes() for name in ("practice", "held_out")]
    assert [part.count(b"\n") for part in parts] == [8, 4]


def test_two_files_are_used_where_they_are(folder: Path) -> None:
    assert main(["init", "--practice", "tasks.jsonl", "--held-out", "more.jsonl", *ENDPOINT]) == 0
    assert 'practice = "tasks.jsonl"' in (folder / "config.toml").read_text("utf-8")
    assert main(["init", "deep", "--practice", "tasks.jsonl", "--held-out", "more.jsonl", *ENDPOINT]) == 0
    config = load_config(folder / "deep" / "config.toml", environment=False)
    assert (config.data.practice, config.data.held_out) == (folder / "tasks.jsonl", folder / "more.jsonl")
    assert not (folder / "deep" / "practice.jsonl").exists()


def written(folder: Path, *flags: str) -> Config:
    assert main(["init", "mine", "--data", "tasks.jsonl", "--force", *flags]) == 0
    return load_config(folder / "mine" / "config.toml", environment=False)


def test_flags_are_what_the_file_says(folder: Path) -> None:
    config = written(
        folder, *ENDPOINT, "--api-key-env", "SOME_KEY", "--verifier", "math", "--recipe", "small-model"
    )
    assert (config.model.name, config.model.api_key_env, config.recipe) == (
        "scripted",
        "SOME_KEY",
        "small-model",
    )
    assert config.verifier.kind == "math"
    assert "boxed" in config.agent.system
    config = written(folder, "--local", "default", "--verifier", "graders:reward")
    assert (config.model.local, config.limits.concurrency, config.recipe) == ("default", 4, "small-model")
    assert config.verifier.function == "graders:reward"
    assert config.practice.select == "gain"


@pytest.mark.parametrize("model", [ENDPOINT, ["--local", "default"]])
def test_the_file_shows_the_everyday_keys_and_no_other(folder: Path, model: list[str]) -> None:
    written(folder, *model)
    table = ""
    shown = set()
    for line in lines(folder / "mine" / "config.toml"):
        if match := re.match(r"(?:# )?\[([\w.]+)\]", line):
            table = f"{match[1]}."
        elif match := re.match(r"(?:# )?(\w+) = ", line):
            shown.add(table + match[1])
    assert shown == {setting.name for setting in SETTINGS.values() if setting.everyday}


def test_keys_that_are_commented_out_are_right(folder: Path) -> None:
    """Uncommented, each alone is a key of its table."""
    written(folder, *ENDPOINT)
    whole = lines(folder / "mine" / "config.toml")
    path = folder / "mine" / "config.toml"
    tried = 0
    for number, line in enumerate(whole):
        if not re.match(r"# \w+ = ", line) or line.startswith(("# local", "# input", "# cached", "# output")):
            continue
        path.write_text("\n".join([*whole[:number], line[2:], *whole[number + 1 :]]), "utf-8")
        load_config(path, environment=False)
        tried += 1
    assert tried >= 10
    prices = re.sub(r"(?m)^# (?=\[model\.price|(?:input|cached_input|output) = )", "", "\n".join(whole))
    path.write_text(prices, "utf-8")
    price = load_config(path, environment=False).model.price
    assert price is not None
    assert price.output == 1.1


MISTAKES: list[tuple[list[str], str]] = [
    ([], "tfgrpo init needs your data: --data FILE"),
    (["--practice", "tasks.jsonl", *ENDPOINT], "--practice FILE and --held-out FILE"),
    (["--data", "tasks.jsonl"], "tfgrpo init needs a model: --base-url URL and --model NAME"),
    (["--data", "tasks.jsonl", "--model", "m"], "--base-url URL and --model NAME"),
    (["--data", "tasks.jsonl", "--practice", "more.jsonl", *ENDPOINT], "--data is one file to split"),
    (["--data", "tasks.jsonl", "--local", "default", *ENDPOINT], "--local is the embedded model"),
    (["--data", "none.jsonl", *ENDPOINT], "--data: there is no file none.jsonl."),
    (["--data", "broken.jsonl", *ENDPOINT], "broken.jsonl, line 2: is not valid JSON"),
    (["--data", "one.jsonl", *ENDPOINT], "one.jsonl holds one question only"),
    (["--data", "blind.jsonl", *ENDPOINT], "--data: 4 of 4 tasks of blind.jsonl have no truth"),
    (["--practice", "tasks.jsonl", "--held-out", "tasks.jsonl", *ENDPOINT], "is also practice task"),
    (["--data", "tasks.jsonl", *ENDPOINT, "--recipe", "papr"], "mine/config.toml: recipe: Input should be"),
    (["--data", "tasks.jsonl", *ENDPOINT, "--verifier", "python"], 'write kind = "module:function"'),
    (["--data", "tasks.jsonl", "--base-url", "x", "--model", "m"], "mine/config.toml: model.base_url:"),
    (["--data", "tasks.jsonl", *ENDPOINT, "--colour", "red"], "--colour"),
]


@pytest.mark.parametrize(("flags", "told"), MISTAKES)
def test_a_mistake_is_told_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    (folder / "broken.jsonl").write_text('{"id": 1, "input": "a", "truth": "b"}\n{"id": 2\n', "utf-8")
    (folder / "one.jsonl").write_text('{"id": 1, "input": "a", "truth": "b"}\n', "utf-8")
    write_tasks(folder / "blind.jsonl", 4, truth=False)
    before = files(folder)
    assert main(["init", "mine", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
    assert files(folder) == before


def test_nothing_is_overwritten_without_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = ["init", "mine", "--data", "tasks.jsonl", *ENDPOINT]
    assert main(init) == 0
    before = files(folder)
    assert main(init) == 2
    assert "mine/config.toml exists already" in " ".join(capsys.readouterr().err.split())
    (folder / "mine" / "config.toml").unlink()
    assert main(init) == 2
    assert "mine/practice.jsonl exists already" in " ".join(capsys.readouterr().err.split())
    assert main([*init, "--force"]) == 0
    assert files(folder) == before
    # Its own output is no input: the split would eat it up, also with --force.
    assert main(["init", "mine", "--data", "mine/practice.jsonl", *ENDPOINT, "--force"]) == 2
    assert "is the file to split" in " ".join(capsys.readouterr().err.split())
    assert files(folder) == before


def test_a_folder_that_cannot_be_written_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine").write_text("", "utf-8")
    assert main(["init", "mine", "--data", "tasks.jsonl", *ENDPOINT]) == 2
    assert "mine: cannot be written" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("flags", "said", "expected"),
    [
        (
            [],
            "tasks.jsonl\nhttp://127.0.0.1:9/v1\nscripted\nSOME_KEY\n\n",
            {"name": "scripted", "api_key_env": "SOME_KEY", "kind": "exact"},
        ),
        (["--verifier", "math"], "\ntasks.jsonl\nmore.jsonl\n\n", {"local": "default", "kind": "math"}),
        (
            ["--data", "tasks.jsonl", *ENDPOINT, "--api-key-env", "", "--verifier", "exact"],
            "",
            {"kind": "exact"},
        ),
    ],
)
def test_a_terminal_is_asked_for_the_rest(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
    expected: dict[str, Any],
) -> None:
    stdin = Terminal(said)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["init", "mine", *flags]) == 0
    assert stdin.read() == ""
    assert "data file to split" not in capsys.readouterr().out  # questions go to stderr
    config = load_config(folder / "mine" / "config.toml", environment=False)
    found = config.model.model_dump() | config.verifier.model_dump()
    found["name"] = config.model.name
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("said", "told"),
    [("", "needs your data"), ("\n\n", "needs your data"), ("tasks.jsonl\nhttp://x/v1\n\n", "needs a model")],
)
def test_an_answer_that_is_missing_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, told: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(said))
    assert main(["init", "mine"]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (folder / "mine").exists()


def test_config_show_tells_every_value_and_its_origin(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["init", "mine", "--data", "tasks.jsonl", "--local", "default"]) == 0
    config = folder / "mine" / "config.toml"
    text = config.read_text("utf-8").replace("Reply with", "Reply at length. " * 40 + "Reply with")
    config.write_text(text + '[expert.model.distiller]\nname = "big"\nbase_url = "http://x/v1"\n', "utf-8")
    capsys.readouterr()
    monkeypatch.setenv("TFGRPO_LIMITS__ATTEMPTS", "2")
    monkeypatch.setenv("COLUMNS", "60")
    show = ["config", "show", "mine/config.toml", "--set", "practice.oversample=1"]
    assert main(show) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    head, *rows = captured.out.splitlines()
    assert head.split() == ["key", "mark", "origin", "value"]
    starts = [head.index(word) for word in ("mark", "origin", "value")]
    cells = {}
    for row in rows:
        assert all(row[start - 2 : start] == "  " for start in starts), row
        key, mark, origin = (row[a:b].strip() for a, b in zip([0, *starts[:2]], starts, strict=True))
        cells[key] = (mark, origin, row[starts[2] :])
    assert cells["recipe"] == ("shapes", "file config.toml", '"small-model"')
    assert cells["practice.epochs"] == ("shapes", "recipe small-model", "1")
    assert cells["expert.limits.attempts"] == ("speed", "environment variable TFGRPO_LIMITS__ATTEMPTS", "2")
    assert cells["expert.practice.oversample"] == ("shapes", "--set", "1")
    assert cells["expert.model.distiller.name"] == ("shapes", "file config.toml", '"big"')
    assert cells["budget.usd"] == ("speed", "default", "unset")
    assert len(cells["agent.system"][2]) > 600
    assert "expert.model.judge.name" not in cells
    assert main([*show, "--json"]) == 0
    found = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert found.keys() == cells.keys()
    assert found["practice.epochs"] == {
        "key": "practice.epochs",
        "mark": "shapes",
        "origin": "recipe small-model",
        "value": 1,
    }
    assert found["data.practice"]["value"] == str(folder / "mine" / "practice.jsonl")
    assert main(["config", "show", "nowhere.toml"]) == 2
    assert "no such configuration file" in " ".join(capsys.readouterr().err.split())
