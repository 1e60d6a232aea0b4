"""Creating, opening and closing: what exists, who may have it, and which versions."""

# ruff: noqa: ASYNC240
from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.journal.rowreader import RowReader
from tfgrpo.journal.schema import VERSION
from tfgrpo.keys import Key
from tfgrpo.types import Usage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def create(path: Path, header: dict[str, Any] | None = None) -> None:
    """Make a journal and close it."""
    await (await Journal.create(path, header or {})).aclose()


async def read(path: Path) -> None:
    JournalReader(path).close()


async def test_creating_twice_is_refused(path: Path) -> None:
    await create(path)
    with pytest.raises(JournalError, match="exists already"):
        await Journal.create(path, {})
    await (await Journal.open(path)).aclose()


async def test_a_creation_that_was_cut_off_does_not_stand_in_the_way(path: Path) -> None:
    path.with_name("journal.db.new").write_bytes(b"half a file")
    await create(path, {"seed": 2})
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.db.lock"]


@pytest.mark.parametrize("opener", [Journal.open, read])
async def test_a_missing_journal_is_named(path: Path, opener: Callable[[Path], Awaitable[object]]) -> None:
    with pytest.raises(JournalError, match=r"no journal at .*journal\.db"):
        await opener(path)
    assert list(path.parent.iterdir()) == []


async def test_a_missing_directory_is_named(path: Path) -> None:
    with pytest.raises(JournalError, match=r"nowhere/journal\.db cannot be opened"):
        await Journal.create(path.parent / "nowhere" / "journal.db", {})


@pytest.mark.parametrize("content", [b"", b"# not a database\n" * 400])
async def test_a_foreign_file_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for opener in (Journal.open, read):
        with pytest.raises(JournalError, match=r"journal\.db"):
            await opener(path)
    assert path.read_bytes() == content


def test_another_sqlite_file_is_named(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(a)")
    connection.close()
    with pytest.raises(JournalError, match="is not a tfgrpo journal"):
        JournalReader(path)


async def test_a_newer_version_is_refused(path: Path) -> None:
    await create(path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", VERSION + 1)
    connection.close()
    for opener in (Journal.open, read):
        with pytest.raises(JournalError, match=f"schema version {VERSION + 1}"):
            await opener(path)


async def test_two_engines_in_one_process_are_refused(path: Path) -> None:
    first = await Journal.create(path, {})
    with pytest.raises(JournalError, match="Another tfgrpo process"):
        await Journal.open(path)
    await first.aclose()
    await (await Journal.open(path)).aclose()


async def test_closing_leaves_one_database_file_and_no_thread(path: Path) -> None:
    journal = await Journal.create(path, {})
    await journal.record("usage", Key("u"), Usage())
    assert await journal.get("usage", Key("u"), Usage) == Usage()
    reader = JournalReader(path)
    await journal.aclose()
    await journal.aclose()
    assert reader.header == {}
    reader.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.db.lock"]
    assert [thread.name for thread in threading.enumerate() if "journal" in thread.name] == []


async def test_a_closed_journal_says_so(path: Path) -> None:
    journal = await Journal.create(path, {})
    await journal.record("usage", Key("u"), Usage())
    await journal.aclose()
    with pytest.raises(JournalError, match="is closed"):
        await journal.record("usage", Key("u"), Usage())
    with pytest.raises(JournalError, match="is closed"):
        await journal.get("usage", Key("u"), Usage)
    with pytest.raises(JournalError, match="is closed"):
        await anext(journal.records("usage", Usage))


async def test_closing_writes_what_is_queued(path: Path) -> None:
    journal = await Journal.create(path, {})
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.record("usage", Key("u"), Usage(5))
    await journal.aclose()
    with JournalReader(path) as reader:
        assert reader.records("usage", Usage) == {Key("u"): Usage(5)}


def test_a_second_event_loop_is_refused(path: Path) -> None:
    journal = anyio.run(Journal.create, path, {})
    anyio.run(journal.record, "usage", Key("a"), Usage())
    with pytest.raises(JournalError, match="two event loops"):
        anyio.run(journal.record, "usage", Key("b"), Usage())
    anyio.run(journal.aclose)


async def test_a_header_without_an_encoding_is_refused(path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be journaled"):
        await Journal.create(path, {"model": object()})
    assert list(path.parent.iterdir()) == []


async def test_a_cancelled_opening_leaves_nothing_open(path: Path) -> None:
    await create(path)
    for native in (False, True):
        with contextlib.suppress(TimeoutError):
            if native:
                async with asyncio.timeout(0):
                    await Journal.open(path)
            else:
                with anyio.move_on_after(0):
                    async with await Journal.open(path):
                        await anyio.sleep(1)
        with anyio.fail_after(5):
            while True:
                try:
                    await (await Journal.open(path)).aclose()
                    break
                except JournalError:  # the thread of the one before is about to end
                    assert native
                    await anyio.sleep(0.01)


async def test_a_task_that_knows_no_shield_closes_the_journal_all_the_same(path: Path) -> None:
    journal = await Journal.create(path, {})
    await journal.record("usage", Key("u"), Usage(5))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await journal.aclose()
    async with await Journal.open(path) as again:
        assert await again.get("usage", Key("u"), Usage) == Usage(5)


async def test_opening_and_reading_do_not_block_the_loop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that needs 0.2 s for a page does not stop the loop for as long."""
    async with await Journal.create(path, {}) as journal:
        await journal.record("usage", Key("u"), Usage(5))
    read = RowReader._query

    def slow(self: RowReader, *arguments: Any) -> Any:
        time.sleep(0.2)
        return read(self, *arguments)

    monkeypatch.setattr(RowReader, "_query", slow)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await anyio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        async with await Journal.open(path) as journal:
            assert await journal.get("usage", Key("u"), Usage) == Usage(5)
            assert [key async for key, _ in journal.records("usage", Usage)] == [Key("u")]
            await journal.record("usage", Key("u"), Usage(5))
        group.cancel_scope.cancel()
    assert longest < 0.15
