"""Bad input through the command line: one clear paragraph, the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from tests.support.world import write_tasks

from tfgrpo.cli import main
from tfgrpo.journal import JournalReader
from tfgrpo.testing import FaultPlan, FaultType, LoopbackServer
from tfgrpo.testing.faults import Call
from tfgrpo.testing.scripts import tickets
from tfgrpo.types import FaultKind, Rollout

CONFIG = """
[model]
base_url = "{base_url}"
name = "{model}"
[data]
practice = "practice.jsonl"
held_out = "held_out.jsonl"
[practice]
epochs = 1
batch_size = 4
group_size = 3
[evaluation]
samples = 2
[limits]
concurrency = 8
[expert.limits]
attempts = 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tasks(tmp_path / "practice.jsonl", 6)
    write_tasks(tmp_path / "held_out.jsonl", 4, first=20_000)
    write_config(tmp_path)
    return tmp_path


def write_config(
    folder: Path, base_url: str = "http://127.0.0.1:9/v1", model: str = "scripted", more: str = ""
) -> None:
    text = CONFIG.format(base_url=base_url, model=model) + more
    (folder / "config.toml").write_text(text, encoding="utf-8")


def told(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return " ".join(captured.err.split())


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda f: (f / "config.toml").unlink(), "no such configuration file"),
        (lambda f: (f / "config.toml").write_text("[run\n", "utf-8"), "not valid TOML"),
        (lambda f: write_config(f, more="[practise]\n"), "unknown key practise; did you mean practice?"),
        (lambda f: (f / "practice.jsonl").unlink(), "data.practice: there is no file"),
        (lambda f: (f / "practice.jsonl").write_text("", "utf-8"), "holds no task"),
        (lambda f: (f / "practice.jsonl").write_bytes(b"\xff\xfe{}"), "line 1: is not UTF-8"),
        (lambda f: (f / "practice.jsonl").write_text('{"id": 1}\n', "utf-8"), "no 'input'"),
        (
            lambda f: (f / "practice.jsonl").write_text(
                '{"id":1,"input":"a"}\n{"id":1,"input":"b"}', "utf-8"
            ),
            "twice",
        ),
        (lambda f: write_config(f, more='[verifier]\nkind = "nowhere:f"\n'), "nowhere"),
        (lambda f: (f / "run").write_text("", "utf-8"), "cannot be written"),
    ],
)
def test_a_mistake_is_told_in_a_paragraph(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: object, expected: str
) -> None:
    spoil(folder)  # type: ignore[operator]
    assert main(["practice", str(folder / "config.toml"), "--run-dir", str(folder / "run")]) == 2
    assert expected in told(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["practise", "x.toml"],
        ["practice"],
        ["practice", "x.toml", "--conc", "3"],
        ["resume", "/nowhere"],
        ["report", "/nowhere"],
        ["compare", "/nowhere", "/nowhere"],
        ["library", "show", "/nowhere"],
        ["library", "log", "/nowhere"],
        ["evaluate", "x.toml", "--library", "/nowhere"],
    ],
)
def test_wrong_arguments_are_exit_code_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_endpoint_that_is_down_stops_with_everything_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        write_config(folder, f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
        assert main(["practice", str(folder / "config.toml"), "--run-dir", str(folder / "run")]) == 3
    message = told(capsys)
    assert "tfgrpo resume" in message
    assert "127.0.0.1" in message


@pytest.mark.parametrize(("key", "model", "expected"), [("right", "scripted", "key"), (None, "gone", "gone")])
async def test_a_refusal_stops_and_a_mended_one_goes_on(
    folder: Path, key: str | None, model: str, expected: str
) -> None:
    async with LoopbackServer(tickets, api_key=key) as server:
        write_config(folder, server.base_url, model)
        command = [sys.executable, "-m", "tfgrpo"]
        practice = [*command, "practice", str(folder / "config.toml"), "--run-dir", str(folder / "run")]
        done = await run(practice)
        assert done.returncode == 3
        message = " ".join(done.stderr.decode().split())
        assert expected in message
        assert "tfgrpo resume" in message
        assert "Traceback" not in message


def test_a_key_that_is_not_set_is_told_before_anything_is_created(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "config.toml").read_text("utf-8")
    (folder / "config.toml").write_text(
        text.replace("[data]", 'api_key_env = "TFGRPO_NO_SUCH_KEY"\n[data]'), "utf-8"
    )
    assert main(["practice", str(folder / "config.toml"), "--run-dir", str(folder / "run")]) == 2
    assert "TFGRPO_NO_SUCH_KEY is not set" in told(capsys)
    assert not (folder / "run").exists()


GRADERS = """
def seven(task, answer):
    return 7

def nan(task, answer):
    return float("nan")

async def broken(task, answer):
    raise RuntimeError("no grader today")
"""
PRACTICE = [sys.executable, "-m", "tfgrpo", "practice", "config.toml", "--run-dir", "run"]


@pytest.mark.parametrize("name", ["seven", "nan", "broken"])
async def test_a_broken_verifier_is_a_fault_and_never_a_reward(folder: Path, name: str) -> None:
    (folder / "graders.py").write_text(GRADERS, "utf-8")
    async with LoopbackServer(tickets) as server:
        write_config(folder, server.base_url, more=f'[verifier]\nkind = "graders:{name}"\n')
        done = await run([*PRACTICE, "--json"], folder)
    assert done.returncode == 3, done.stderr
    assert done.stdout == b""
    assert not (folder / "run" / "result.json").exists()
    message = " ".join(done.stderr.decode().split())
    assert "Traceback" not in message
    # 4 held-out tasks, two samples of each, and each asked again once.
    assert (
        "Nothing could be measured: 16 of 16 attempts of the arm 'baseline' ended in a fault, 16 of them"
        in message
    )
    assert "VerifierError (verifier)" in message
    with JournalReader(folder / "run" / "journal.db") as reader:
        rollouts = reader.records("rollout", Rollout).values()
    assert len(rollouts) == 16
    for rollout in rollouts:
        assert rollout.reward is None
        assert rollout.fault is not None
        assert rollout.fault.kind is FaultKind.VERIFIER


@pytest.mark.parametrize("calls", ["rollout", "distiller"])
async def test_a_run_whose_every_call_is_refused_says_why_and_does_not_end_well(
    folder: Path, calls: str
) -> None:
    """Whichever of the roles it is."""

    def refused(call: Call) -> bool:
        return calls == "rollout" or call.key.startswith("distill/")

    async with LoopbackServer(tickets, faults=FaultPlan().when(refused, FaultType.INVALID_REQUEST)) as server:
        write_config(folder, server.base_url)
        done = await run([*PRACTICE, "--json"], folder)
        assert done.returncode == 3, done.stderr
        assert done.stdout == b""
        message = " ".join(done.stderr.decode().split())
        assert "Traceback" not in message
        assert "InvalidRequestError" in message
        again = await run([sys.executable, "-m", "tfgrpo", "resume", "run"], folder)
        assert again.returncode == 3, "what nobody mended does not end well the second time either"


async def test_doctor_says_what_is_well_and_what_is_not(folder: Path) -> None:
    async with LoopbackServer(tickets) as server:
        write_config(folder, server.base_url)
        doctor = [sys.executable, "-m", "tfgrpo", "doctor", str(folder / "config.toml"), "--json"]
        done = await run(doctor)
        findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
        assert done.returncode == 0, done.stdout
        assert {"configuration", "data.practice", "data.held_out", "disk", "open files"} <= findings.keys()
        assert findings["limits"]["found"].startswith("at most 8 calls in flight; ")
        assert server.counts.served == 1
        write_config(folder, server.base_url, "gone")
        done = await run(doctor)
        assert done.returncode == 2
        assert any(not finding["ok"] and "gone" in finding["found"] for finding in json.loads(done.stdout))


async def run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return await anyio.run_process(command, check=False, cwd=folder)


def test_ctrl_c_keeps_everything_and_resume_finishes(folder: Path) -> None:
    server = [sys.executable, "-m", "tfgrpo.testing.loopback", "--port", "0", "--latency", "0.4"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        write_config(folder, process.stdout.readline().strip())
        command = [sys.executable, "-m", "tfgrpo"]
        practice = [*command, "practice", str(folder / "config.toml"), "--run-dir", str(folder / "run")]
        with subprocess.Popen(practice, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as engine:
            while not (folder / "run" / "journal.db").exists():
                assert engine.poll() is None
                time.sleep(0.01)
            time.sleep(0.6)
            os.kill(engine.pid, signal.SIGINT)
            _, errors = engine.communicate(timeout=60)
        assert engine.returncode == 130, errors
        assert "tfgrpo resume" in " ".join(errors.split())
        assert "Traceback" not in errors
        resume = [*command, "resume", str(folder / "run"), "--json"]
        done = subprocess.run(resume, capture_output=True, timeout=120)
        process.terminate()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["open_intents"] == 0
