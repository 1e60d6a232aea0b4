"""The embedded model for real: llama.cpp serves SmolLM2-135M to the client that runs use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import orjson
import pytest

from tfgrpo.models import OpenAIModel, open_session
from tfgrpo.models.local import LocalServer
from tfgrpo.models.weights import fetch
from tfgrpo.types import Message, ModelRequest, StopReason

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]

SCHEMA = {
    "type": "object",
    "properties": {"queue": {"type": "string", "enum": ["Q2", "Q4", "Q7", "Q9"]}},
    "required": ["queue"],
    "additionalProperties": False,
}
QUESTION = (
    Message("system", "You route support tickets to the queues Q2, Q4, Q7 and Q9. Answer in JSON."),
    Message("user", "My parcel has not arrived yet."),
)


async def smallest() -> Path:
    return await fetch("smollm2-135m", lambda _done, _total, _what: None)


async def test_serves_groups_schemas_and_counts(tmp_path: Path) -> None:
    async with (
        LocalServer(await smallest(), log=tmp_path / "llama.log", slots=2, context=1024) as server,
        open_session(4) as session,
    ):
        model = OpenAIModel(
            server.base_url,
            server.name,
            session=session,
            group_limit=server.slots,
            recount=server.recount,
        )
        group = await model.complete(
            ModelRequest(QUESTION, n=2, temperature=0.8, max_tokens=24, seed=5, response_schema=SCHEMA)
        )
        assert len(group.choices) == 2
        for choice in group.choices:
            assert orjson.loads(choice.content)["queue"] in {"Q2", "Q4", "Q7", "Q9"}
        assert group.usage.output_tokens == await server.recount([c.content for c in group.choices])
        single = ModelRequest(QUESTION, temperature=0.0, max_tokens=12, seed=5)
        first, again = await model.complete(single), await model.complete(single)
        assert first.choices == again.choices
        assert again.usage.cached_tokens > 0
        counted = await server.recount([first.choices[0].content])
        assert counted - first.usage.output_tokens == (first.choices[0].stop_reason is StopReason.LENGTH)
        await model.aclose()
    assert "listening on http://127.0.0.1" in (tmp_path / "llama.log").read_text()


PARENT = """
    import anyio, sys
    from pathlib import Path
    from tfgrpo.models.local import LocalServer

    async def main():
        async with LocalServer(Path(sys.argv[1]), log=Path(sys.argv[2]), slots=1, context=256) as server:
            print(server.pid, flush=True)
            await anyio.sleep_forever()

    anyio.run(main)
"""


def state(pid: int) -> str:
    """The state letter of a process, or "gone"; a zombie waits only for its new parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_server_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    weights = await smallest()
    parent = subprocess.Popen(  # noqa: ASYNC220 (nothing else runs in this loop)
        [sys.executable, "-c", textwrap.dedent(PARENT), str(weights), str(tmp_path / "llama.log")],
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # Ctrl-C in a terminal reaches the child too: it must go on serving until its parent lets go.
        os.kill(child, signal.SIGINT)
        time.sleep(0.3)  # noqa: ASYNC251
        assert state(child) not in {"gone", "Z"}
        parent.kill()
    deadline = time.monotonic() + 10
    while state(child) not in {"gone", "Z"}:
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.05)  # noqa: ASYNC251
