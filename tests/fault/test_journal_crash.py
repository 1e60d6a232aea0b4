"""SIGKILL at any moment: what was acknowledged is there, and the run is free for the next engine."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.keys import Key
from tfgrpo.types import Choice, EffectStatus, ModelReply, Usage

ENGINE = """
import os, sys
from pathlib import Path
import anyio
from tfgrpo.journal import Journal, digest_of
from tfgrpo.keys import Key
from tfgrpo.protocols import Effect
from tfgrpo.types import *

async def main():
    path = Path(sys.argv[1])
    async with await (Journal.open(path) if path.exists() else Journal.create(path, {})) as journal:
        numbers = iter(range(1_000_000))
        async def work():
            for n in numbers:
                key = Key("alone", index=n) if n % 2 else Key("owned", index=n).do("model")
                known = await journal.find(key, ModelReply)
                if known and known.status is EffectStatus.COMPLETED:
                    continue
                request = ModelRequest((Message("user", key.text * 99),))
                effect = Effect(key, EffectKind.MODEL, Role.ROLLOUT, digest_of(request), request)
                [ticket] = await journal.intend([effect])
                os.write(1, f"I {key} {ticket.attempt}\\n".encode())
                await journal.complete(ticket, ModelReply((Choice(key.text * 50),), Usage(1)), Usage(1))
                os.write(1, f"C {key} {ticket.attempt}\\n".encode())
        async with anyio.create_task_group() as group:
            for _ in range(16):
                group.start_soon(work)

anyio.run(main)
"""

HOLDER = """
import os, sys, time
from pathlib import Path
import anyio
from tfgrpo.journal import Journal

journal = anyio.run(Journal.create, Path(sys.argv[1]), {})
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
os.write(1, f"{child}\\n".encode())
time.sleep(60)
"""


@contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def test_every_acknowledged_write_survives_sigkill(tmp_path: Path) -> None:
    """Six engines in turn work on one journal and are killed: none loses a call or pays one twice."""
    path = tmp_path / "journal.db"
    moments = random.Random(11)
    acknowledged: dict[str, set[tuple[Key, int]]] = {"I": set(), "C": set()}

    def note(line: str) -> None:
        kind, key, attempt = line.split()
        acknowledged[kind].add((Key.parse(key), int(attempt)))

    async def check() -> None:
        async with await Journal.open(path) as journal:
            with JournalReader(path) as reader:
                calls = list(reader.calls())
                assert reader.open_intents() == len(calls) - len(
                    [call for call in calls if call.state is EffectStatus.COMPLETED]
                )
            found = {(call.key, call.attempt): call.state for call in calls}
            assert acknowledged["I"] <= found.keys()
            assert {found[call] for call in acknowledged["C"]} <= {EffectStatus.COMPLETED}
            for key, attempt in acknowledged["C"]:
                known = await journal.find(key, ModelReply)
                assert known is not None
                assert known.attempt == attempt
                assert known.result == ModelReply((Choice(key.text * 50),), Usage(calls=1))
            paid = [call.key for call in calls if call.state is EffectStatus.COMPLETED]
            assert len(paid) == len(set(paid))

    for _ in range(6):
        with process(ENGINE, path) as engine:
            assert engine.stdout is not None
            for _ in range(moments.randrange(1, 400)):
                note(engine.stdout.readline())
            engine.send_signal(signal.SIGKILL)
            for line in engine.stdout:
                note(line)
        anyio.run(check)
    assert acknowledged["C"]


async def test_the_lock_dies_with_its_process_even_if_a_forked_child_lives(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with process(HOLDER, path) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(JournalError, match="Another tfgrpo process"):
                await Journal.open(path)
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            os.kill(child, 0)
            await (await Journal.open(path)).aclose()
        finally:
            os.kill(child, signal.SIGKILL)
