"""The batch example, killed once: every prompt is answered once, and nothing is paid twice but what was in flight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMPTS, CONCURRENCY = 2_000, 32


@pytest.fixture
def base_url(tmp_path: Path) -> Iterator[str]:
    log = tmp_path / "served.jsonl"
    log.touch()
    command = [sys.executable, "-m", "tfgrpo.testing.loopback", "--log", str(log), "--latency", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def start(folder: Path, base_url: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "examples" / "batch" / "million.py")]
    command += [str(folder / "prompts.jsonl"), str(folder / "answers.jsonl"), "--base-url", base_url]
    command += [
        "--model",
        "scripted",
        "--concurrency",
        str(CONCURRENCY),
        "--input-price",
        "1",
        "--output-price",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def finish(folder: Path, base_url: str) -> None:
    process = start(folder, base_url)
    told = process.communicate(timeout=200)[1]
    assert process.returncode == 0, told


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def served(folder: Path) -> Counter[str]:
    return Counter(json.loads(line)["key"] for line in lines_of(folder / "served.jsonl"))


def test_killed_and_started_again_every_prompt_is_answered_once(tmp_path: Path, base_url: str) -> None:
    ids = [f"p/{number}" for number in range(PROMPTS)]
    with (tmp_path / "prompts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": id_, "prompt": f"Say {id_}."}) + "\n" for id_ in ids)

    first = start(tmp_path, base_url)
    while len(lines_of(tmp_path / "served.jsonl")) < PROMPTS // 3:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert served(tmp_path).total() < PROMPTS

    finish(tmp_path, base_url)
    answers = [json.loads(line) for line in lines_of(tmp_path / "answers.jsonl")]
    assert sorted(answer["id"] for answer in answers) == sorted(ids)
    assert all(answer["answer"] for answer in answers)
    paid = served(tmp_path)
    assert len(paid) == PROMPTS
    assert paid.total() - PROMPTS <= CONCURRENCY, "more was paid twice than was in flight"

    finish(tmp_path, base_url)
    assert served(tmp_path) == paid, "nothing is left to be paid"


def test_interrupted_it_says_how_to_go_on_and_goes_on(tmp_path: Path, base_url: str) -> None:
    prompts = ({"id": str(number), "prompt": "Say it."} for number in range(400))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in prompts), "utf-8")
    first = start(tmp_path, base_url)
    while len(lines_of(tmp_path / "served.jsonl")) < 100:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    told = first.communicate(timeout=60)[1]
    assert first.returncode == 3, told
    assert "Start it again" in told
    finish(tmp_path, base_url)
    paid = served(tmp_path)
    assert paid.total() - len(paid) <= CONCURRENCY
    assert len(lines_of(tmp_path / "answers.jsonl")) == len(paid) == 400


def test_a_torn_last_line_is_cut_off(tmp_path: Path, base_url: str) -> None:
    (tmp_path / "prompts.jsonl").write_text(
        '{"id": "a", "prompt": "Say a."}\n{"id": "b", "prompt": "Say b."}\n', "utf-8"
    )
    (tmp_path / "answers.jsonl").write_text('{"id": "a", "answer": "kept"}\n{"id": "b", "an', "utf-8")
    finish(tmp_path, base_url)
    first, second = (json.loads(line) for line in lines_of(tmp_path / "answers.jsonl"))
    assert first == {"id": "a", "answer": "kept"}
    assert second["id"] == "b"
    assert second["answer"]
