"""Creating, opening and closing: what exists, who may have it, and which versions."""

from __future__ import annotations

from pathlib import Path

import anyio
import apsw
import pytest

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.journal.schema import VERSION
from tfgrpo.types import Usage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_creating_twice_is_refused(path: Path) -> None:
    Journal.create(path, {}).close()
    with pytest.raises(JournalError, match="exists already"):
        Journal.create(path, {})
    Journal.open(path).close()


def test_a_creation_that_was_cut_off_does_not_stand_in_the_way(path: Path) -> None:
    path.with_name("journal.db.new").write_bytes(b"half a file")
    Journal.create(path, {"seed": 2}).close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.db.lock"]


@pytest.mark.parametrize("opener", [Journal.open, JournalReader])
def test_a_missing_journal_is_named(path: Path, opener: type[JournalReader]) -> None:
    with pytest.raises(JournalError, match=r"no journal at .*journal\.db"):
        opener(path)
    assert list(path.parent.iterdir()) == []


def test_a_missing_directory_is_named(path: Path) -> None:
    with pytest.raises(JournalError, match=r"nowhere/journal\.db cannot be opened"):
        Journal.create(path.parent / "nowhere" / "journal.db", {})


@pytest.mark.parametrize("content", [b"", b"# not a database\n" * 400])
def test_a_foreign_file_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for opener in (Journal.open, JournalReader):
        with pytest.raises(JournalError, match=r"journal\.db"):
            opener(path)
    assert path.read_bytes() == content


def test_another_sqlite_file_is_named(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(a)")
    connection.close()
    with pytest.raises(JournalError, match="is not a tfgrpo journal"):
        JournalReader(path)


def test_a_newer_version_is_refused(path: Path) -> None:
    Journal.create(path, {}).close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", VERSION + 1)
    connection.close()
    with pytest.raises(JournalError, match=f"schema version {VERSION + 1}"):
        Journal.open(path)


def test_two_engines_in_one_process_are_refused(path: Path) -> None:
    first = Journal.create(path, {})
    with pytest.raises(JournalError, match="Another tfgrpo process"):
        Journal.open(path)
    first.close()
    Journal.open(path).close()


def test_closing_leaves_one_database_file(path: Path) -> None:
    journal = Journal.create(path, {})
    reader = JournalReader(path)
    journal.close()
    journal.close()
    assert reader.header == {}
    reader.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.db.lock"]


async def test_a_closed_journal_says_so(path: Path) -> None:
    journal = Journal.create(path, {})
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        await journal.record("usage", "u", Usage())
    with pytest.raises(JournalError, match="is closed"):
        journal.records("usage", Usage)


def test_closing_writes_what_is_queued(path: Path) -> None:
    async def abandon() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.record("usage", "u", Usage(5))

    journal = Journal.create(path, {})
    anyio.run(abandon)
    journal.close()
    with JournalReader(path) as reader:
        assert reader.records("usage", Usage) == {"u": Usage(5)}


def test_a_second_event_loop_is_refused(path: Path) -> None:
    journal = Journal.create(path, {})
    anyio.run(journal.record, "usage", "a", Usage())
    with pytest.raises(JournalError, match="two event loops"):
        anyio.run(journal.record, "usage", "b", Usage())
    journal.close()


def test_a_header_without_an_encoding_is_refused(path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be journaled"):
        Journal.create(path, {"model": object()})
    assert list(path.parent.iterdir()) == []
