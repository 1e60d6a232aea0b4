"""What the writing side remembers and forgets, and how the loop makes room for the thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.fault.journal_vfs import RecordingVFS
from tests.ledger import intend

from tfgrpo.journal import Journal, JournalReader
from tfgrpo.journal.codec import Recent
from tfgrpo.journal.disk import Disk
from tfgrpo.keys import Key
from tfgrpo.protocols import Ticket
from tfgrpo.types import Choice, Message, ModelReply, ModelRequest, Trajectory, Usage


def test_a_bounded_map_forgets_what_is_not_asked_for() -> None:
    recent: Recent[int, str] = Recent(10)
    recent.put(0, "kept")
    for number in range(1, 100):
        recent.put(number, "passing")
        assert recent.get(0) == "kept"
    assert recent.get(1) is None
    assert sum(recent.get(number) is not None for number in range(100)) <= 20
    recent.put(200, "heavy", 11)
    recent.put(201, "heavy", 11)
    assert recent.get(0) is None


async def test_a_forgotten_message_is_stored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfgrpo.journal.blobs._REMEMBERED", 2)
    path = tmp_path / "journal.db"
    values = {Key("r", index=n): Trajectory((Message("user", f"{n % 5} " * 300),)) for n in range(20)}
    async with await Journal.create(path, {}) as journal:
        for key, value in values.items():
            await journal.record("t", key, value)
    with JournalReader(path) as reader:
        assert reader._rows.last_blob() > 5
        assert reader.records("t", Trajectory) == values


async def test_the_loop_steps_aside_for_a_thread_that_does_not_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    sleep = time.sleep
    vfs = RecordingVFS(record=False)

    def nap(seconds: float) -> None:
        naps.append(seconds)
        sleep(seconds)

    monkeypatch.setattr("tfgrpo.journal.writer.time.sleep", nap)
    async with await Journal.create(tmp_path / "journal.db", {}, _disk=Disk(files=vfs.files)) as journal:
        vfs.before = lambda kind, name: sleep(0.1) if kind == "sync" else None
        with anyio.fail_after(10):
            await journal.record("usage", Key("slow"), Usage(1))
        assert naps  # it did not move for more than two looks
        assert sum(naps) < 0.01


async def test_a_sound_journal_is_ready_at_once(tmp_path: Path) -> None:
    told: list[str | None] = []
    async with await Journal.create(tmp_path / "journal.db", {}, on_trouble=told.append) as journal:
        await journal.ready()
        await journal.record("usage", Key("u"), Usage(1))
        await journal.ready()
    assert told == []


@pytest.mark.parametrize(
    ("seconds", "linger"), [(0.0, 0.01), (0.2, 0.01), (0.8, 0.02), (60.0, 0.03), (-3600.0, 0.01)]
)
async def test_a_commit_waits_for_company_by_what_calls_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, linger: float
) -> None:
    """Between 10 and 30 ms, and only in a crowd; a clock that is set back does no harm."""
    naps: list[float] = []
    now = [1_000.0]
    sleep = time.sleep

    def nap(length: float) -> None:
        if threading.current_thread().name.startswith("tfgrpo-journal"):
            naps.append(length)
        sleep(length)

    monkeypatch.setattr("tfgrpo.journal.writer.time.sleep", nap)
    monkeypatch.setattr("tfgrpo.journal.journal._NEWEST", 1.0)
    request = ModelRequest((Message("user", "?"),))
    reply = ModelReply((Choice("!"),), Usage(1), "m")
    async with await Journal.create(tmp_path / "journal.db", {}, clock=lambda: now[0]) as journal:

        async def together(act: Callable[[int], Coroutine[Any, Any, object]], count: int) -> None:
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(act, number)

        tickets: dict[int, Ticket] = {}

        async def begin(number: int) -> None:
            tickets[number] = await intend(journal, Key("k", index=number), request)

        await begin(1_000)
        assert naps == []
        await together(begin, 99)
        now[0] += seconds
        await journal.complete(tickets[0], reply, reply.usage)
        naps.clear()
        await together(lambda n: journal.complete(tickets[n + 1], reply, reply.usage), 50)
        assert naps == pytest.approx([linger] * len(naps))
        assert naps
