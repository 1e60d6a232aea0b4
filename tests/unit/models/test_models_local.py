"""The embedded server's failures to start: each is one paragraph with its remedy, and no process is left."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import anyio
import pytest

from tfgrpo.errors import LocalModelError
from tfgrpo.models import local
from tfgrpo.models.local import LocalServer


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    """Run `program` instead of llama.cpp."""
    script = folder / "child.py"
    script.write_text("import os, signal, sys, time\n" + program)
    monkeypatch.setattr(local, "_CHILD", script)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def refusal(path: Path, **settings: float) -> tuple[LocalServer, str]:
    """The message with which the server does not start."""
    server = LocalServer(path, log=path.with_name("llama.log"), **settings)  # type: ignore[arg-type]
    with pytest.raises(LocalModelError) as caught:
        async with server:
            pytest.fail("it started")
    return server, caught.value.message


async def test_a_missing_file(tmp_path: Path) -> None:
    server, message = await refusal(tmp_path / "none.gguf")
    assert "none.gguf" in message
    assert "No such file or directory" in message
    assert "Check the path" in message
    assert server.pid is not None
    assert is_gone(server.pid)


async def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"garbage" * 100)
    _, message = await refusal(tmp_path / "bad.gguf")
    assert "invalid magic characters" in message
    assert "damaged, incomplete" in message
    assert str(tmp_path / "llama.log") in message


async def test_a_gguf_cut_short(tmp_path: Path) -> None:
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    _, message = await refusal(tmp_path / "short.gguf")
    assert "damaged, incomplete" in message


async def test_the_extra_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    server, message = await refusal(tmp_path / "x.gguf")
    assert "pip install 'tfgrpo[local]'" in message
    assert server.pid is None


@pytest.mark.parametrize(
    "program",
    ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit('ggml: failed to allocate buffer of size 9')"],
)
async def test_too_little_memory(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, tmp_path, program)
    _, message = await refusal(tmp_path / "x.gguf")
    assert "Memory is short: take a smaller model" in message


async def test_not_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, tmp_path, "time.sleep(60)")
    server, message = await refusal(tmp_path / "x.gguf", start_timeout=0.3)
    assert "was not up within 0 s" in message
    assert server.pid is not None
    assert is_gone(server.pid)


async def test_up_but_not_answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(
        monkeypatch, tmp_path, """print('{"address": "http://127.0.0.1:9"}', flush=True); time.sleep(60)"""
    )
    server, message = await refusal(tmp_path / "x.gguf")
    assert "does not answer on http://127.0.0.1:9/health" in message
    assert server.pid is not None
    assert is_gone(server.pid)


async def test_cancelling_the_start_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, "time.sleep(60)")
    server = LocalServer(tmp_path / "x.gguf", log=tmp_path / "llama.log")
    with anyio.move_on_after(0.3) as scope:
        async with server:
            pytest.fail("it started")
    assert scope.cancelled_caught
    assert server.pid is not None
    assert is_gone(server.pid)


async def test_the_child_ends_when_its_stdin_does(tmp_path: Path) -> None:
    """Without any death signal: the parent here lives on and only lets go of the pipe."""
    (tmp_path / "xllamacpp.py").write_text(
        "class Any:\n    def __getattr__(self, name):\n        value = Any()\n        setattr(self, name, value)\n"
        "        return value\nclass CommonParams(Any): pass\n"
        "class Server:\n    listening_address = 'http://x'\n    def __init__(self, params): pass\n"
    )
    settings = (
        b'{"path": "x", "name": "x", "slots": 1, "context": 1, "threads": 1, "parent": %d}\n' % os.getpid()
    )
    with anyio.fail_after(20):
        async with await anyio.open_process(
            [sys.executable, str(local._CHILD)], env=os.environ | {"PYTHONPATH": str(tmp_path)}
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            await child.stdin.send(settings)
            assert b"http://x" in await child.stdout.receive()
            assert child.returncode is None
            await child.stdin.aclose()
            assert await child.wait() == 0
