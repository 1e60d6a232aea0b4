"""The loopback server: its endpoints, its log, and its life as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tfgrpo.models import OpenAIModel, open_session
from tfgrpo.testing import FaultPlan, FaultType, LoopbackServer
from tfgrpo.testing.loopback import Served, read_log
from tfgrpo.testing.scripts import fingerprint, tickets, with_key
from tfgrpo.types import Message, ModelRequest


def ask(place: int, n: int = 1) -> ModelRequest:
    return ModelRequest((Message("user", with_key("Where?", place)),), n=n)


async def test_models_health_counts_and_nothing_else(tmp_path: Path) -> None:
    async with LoopbackServer(tickets, models=["a", "b"]) as server, aiohttp.ClientSession() as session:
        root = server.base_url.removesuffix("/v1")
        async with session.get(server.base_url + "/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["a", "b"]
        async with session.get(root + "/health") as response:
            assert await response.json() == {"status": "ok"}
        async with session.get(root + "/nothing") as response:
            assert response.status == 404
        async with session.get(root + "/counts") as response:
            counts = await response.json()
        assert counts["served"] == counts["requests"] == 0
        assert counts["errors"] == 1
        async with session.post(server.base_url + "/chat/completions", data=b"{") as response:
            assert response.status == 400


async def test_the_log_has_one_line_per_served_call(tmp_path: Path) -> None:
    log = tmp_path / "served.log"
    plan = FaultPlan().at(1, FaultType.SERVER_ERROR).at(2, FaultType.RESET_AFTER)
    async with LoopbackServer(tickets, faults=plan, log=log) as server, open_session(2) as session:
        model = OpenAIModel(server.base_url, "scripted", session=session)
        for place in range(4):
            try:
                await model.complete(ask(place, n=2), key=f"run/ä {place}")
            except Exception:  # noqa: BLE001, S112 - which calls break is the plan's business
                continue
    assert read_log(log) == [Served(f"run/ä {place}", fingerprint(ask(place)), 2) for place in (1, 2, 3)]
    assert server.counts.served == 3


async def test_a_script_that_raises_is_a_500() -> None:
    def broken(_: ModelRequest) -> str:
        raise KeyError("oops")

    async with LoopbackServer(broken) as server, open_session(1) as session:
        with pytest.raises(Exception, match="KeyError") as caught:
            await OpenAIModel(server.base_url, "scripted", session=session).complete(ask(1))
    assert caught.type.__name__ == "ServerError"


def launch(*options: str) -> subprocess.Popen[str]:
    package = Path(sys.modules["tfgrpo.testing"].__path__[0]).parents[1]
    command = [sys.executable, "-W", "error", "-m", "tfgrpo.testing.loopback", *options]
    environment = os.environ | {"PYTHONPATH": str(package)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    log = tmp_path / "served.log"
    with launch("--log", str(log)) as server:
        yield server, log
        server.kill()


CLIENT = """
import sys, anyio
from tfgrpo.models import OpenAIModel, open_session
from tfgrpo.types import Message, ModelRequest
async def main():
    async with open_session(1) as session:
        model = OpenAIModel(sys.argv[1], "scripted", session=session)
        await model.complete(ModelRequest((Message("user", "hello"),)), key="doomed")
        print("done", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def call_and_die(url: str) -> None:
    """A client in a process of its own gets one answer and is killed with its connection open."""
    package = Path(sys.modules["tfgrpo.testing"].__path__[0]).parents[1]
    environment = os.environ | {"PYTHONPATH": str(package)}
    command = [sys.executable, "-c", CLIENT, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "done\n"
        doomed.kill()


@pytest.mark.one_loop
async def test_as_a_process_it_survives_its_clients(process: tuple[subprocess.Popen[str], Path]) -> None:
    server, log = process
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    call_and_die(url)
    async with open_session(4) as session:
        model = OpenAIModel(url, "scripted", session=session)
        await model.complete(ask(1), key="next")
    async with aiohttp.ClientSession() as client, client.get(url.removesuffix("/v1") + "/counts") as response:
        counts = await response.json()
    assert counts["by_key"] == {"doomed": 1, "next": 1}
    assert [served.key for served in read_log(log)] == ["doomed", "next"]
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=10) == 0


@pytest.mark.one_loop
async def test_as_a_process_it_limits_rates_and_can_do_without_streams() -> None:
    with launch("--no-stream", "--requests-per-minute", "60", "--tokens-per-minute", "5000") as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            async with aiohttp.ClientSession() as client:
                body: dict[str, object] = {
                    "model": "scripted",
                    "messages": [{"role": "user", "content": "Hi"}],
                }
                async with client.post(url + "/chat/completions", json=body) as response:
                    assert response.headers["x-ratelimit-remaining-requests"] == "59"
                    assert response.headers["x-ratelimit-limit-tokens"] == "5000"
                async with client.post(url + "/chat/completions", json=body | {"stream": True}) as response:
                    assert response.status == 400
        finally:
            server.kill()
