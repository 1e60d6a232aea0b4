"""Rows as they are read: heads in order, bodies by number, seals verified, keys of an earlier version translated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.journal.codec import unfold
from tfgrpo.journal.rows import Head, Intent, Record, Table, Unpacker, decode_head
from tfgrpo.journal.schema import SYSTEM, Files, close_reader, connect, guarded, journal_error
from tfgrpo.keys import key_of_version_2
from tfgrpo.types import EffectKind, Message, ModelRequest, ToolRequest

S = TypeVar("S", bound=msgspec.Struct)

#: Rows of one read transaction: a long one would keep a live journal's log from being folded in.
_PAGE = 10_000

_BODY = {
    Table.BODIES: "SELECT body FROM bodies WHERE id = ?",
    Table.BLOBS: "SELECT body FROM blobs WHERE id = ?",
}

#: The request types of the kinds of effect that have one.
_REQUESTS: dict[EffectKind, type[msgspec.Struct]] = {
    EffectKind.MODEL: ModelRequest,
    EffectKind.JUDGE: ModelRequest,
    EffectKind.TOOL: ToolRequest,
}


class RowReader:
    """Reads the rows of a journal file; never changes it. One thread at a time.

    Args:
        path: the journal file.
        files: how to reach it.

    Attributes:
        header: the JSON values of the first row.
        version: of the file.

    Raises:
        JournalError: from every method: the file is missing, damaged, closed, or of another version.
    """

    def __init__(self, path: Path, files: Files = SYSTEM) -> None:
        self.path = path
        self._unpacker = Unpacker()
        self._connection = connect(path, write=False, files=files)
        try:
            with guarded(path):
                self.version: int = self._connection.pragma("user_version")
                self.header: dict[str, Any] = msgspec.json.decode(self._body(1), type=dict[str, Any])
        except BaseException:
            self._connection.close()
            raise

    # --- heads -------------------------------------------------------------------------------------------

    def heads(self, after: int) -> Iterator[tuple[int, Any]]:
        """Every head behind a row, with its row: they have no gap, and nothing may be missing at the end.

        Raises:
            JournalError: a row is damaged or missing.
        """
        old = self.version == 2
        with guarded(self.path):
            while True:
                page = self._query(
                    "SELECT id, head FROM log WHERE id > ? ORDER BY id LIMIT ?", (after, _PAGE)
                )
                for row, value in page:
                    after += 1
                    if row != after:
                        raise ValueError(f"row {after} of log is missing")
                    head = decode_head(row, value)
                    yield row, _translated(head) if old else head
                if len(page) < _PAGE:
                    break
            # The last page of a table can be lost without a gap: each row has a body, so both ends must meet.
            # Read after the rows: a live journal may have grown since, but never by bodies alone.
            ends = self._query("SELECT (SELECT max(id) FROM log), (SELECT max(id) FROM bodies)")[0]
            if ends[0] != ends[1] or (ends[0] or 0) < after:
                raise ValueError(f"log ends at row {ends[0]} and bodies at row {ends[1]}")

    def head(self, row: int) -> Any:
        """One head."""
        with guarded(self.path):
            rows = self._query("SELECT head FROM log WHERE id = ?", (row,))
            head = decode_head(row, rows[0][0] if rows else b"")
            return _translated(head) if self.version == 2 else head

    def damaged(self, what: str) -> JournalError:
        """The error for something that does not fit together."""
        return journal_error(ValueError(what), self.path)

    # --- bodies ------------------------------------------------------------------------------------------

    def value(self, row: int, type: type[S]) -> S:  # noqa: A002
        """The folded value in the body of a row."""
        with guarded(self.path):
            return unfold(self._body(row), type, self._message)

    def values(self, rows: Iterable[int], type: type[S]) -> list[S]:  # noqa: A002
        """The same for many rows; messages that they share are decoded once."""
        seen: dict[str, Message] = {}

        def load(number: str) -> Message:
            if number not in seen:
                seen[number] = self._message(number)
            return seen[number]

        with guarded(self.path):
            return [unfold(self._body(row), type, load) for row in rows]

    def request(self, row: int, kind: EffectKind) -> Any:
        """The request in the body of an intent; JSON values where the kind does not tell its type."""
        with guarded(self.path):
            type_ = _REQUESTS.get(kind)
            body = self._body(row)
            return msgspec.json.decode(body) if type_ is None else unfold(body, type_, self._message)

    def result(self, row: int, type: type[S]) -> S:  # noqa: A002
        """The result in the body of an outcome."""
        with guarded(self.path):
            return msgspec.json.decode(self._body(row), type=type)

    # --- the file ----------------------------------------------------------------------------------------

    def log_frames(self) -> int:
        """How many frames of the write-ahead log are valid."""
        with guarded(self.path):
            frames, _ = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            return max(frames, 0)

    def last_blob(self) -> int:
        """The last row of `blobs`, 0 if there is none."""
        with guarded(self.path):
            return self._query("SELECT max(id) FROM blobs")[0][0] or 0

    def check_open(self) -> None:
        """Raise if the file is closed.

        Raises:
            JournalError: as said.
        """
        with guarded(self.path):
            self._connection.pragma("application_id")

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        close_reader(self._connection, self.path)

    # --- parts -------------------------------------------------------------------------------------------

    def _query(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, bindings).fetchall()

    def _body(self, row: int) -> bytes:
        return self._stored(Table.BODIES, row)

    def _message(self, number: str) -> Message:
        return msgspec.json.decode(self._stored(Table.BLOBS, int(number)), type=Message)

    def _stored(self, table: Table, row: int) -> bytes:
        rows = self._query(_BODY[table], (row,))
        if not rows:
            raise ValueError(f"row {row} of {table.name.lower()} is missing")
        return self._unpacker.unpack(table, row, rows[0][0])


class KeyOrder:
    """Keys and their rows, in the order of the keys, in a temporary file where they are many: memory stays bounded.

    Args:
        pairs: the texts of keys, each once, and the row of each.
    """

    def __init__(self, pairs: Iterable[tuple[str, int]]) -> None:
        self._connection = apsw.Connection("")
        self._connection.execute("CREATE TABLE keys(key TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        with self._connection:
            self._connection.executemany("INSERT INTO keys VALUES (?, ?)", pairs)

    def page(self, after: str, size: int) -> list[tuple[str, int]]:
        """The next pairs behind a key."""
        found: list[Any] = self._connection.execute(
            "SELECT key, row FROM keys WHERE key > ? ORDER BY key LIMIT ?", (after, size)
        ).fetchall()
        return found

    def close(self) -> None:
        """Remove the temporary file."""
        self._connection.close()


def _translated(head: Head) -> Head:
    """A head of version 2 with its key as it is written today."""
    if isinstance(head, Intent):
        return msgspec.structs.replace(head, key=key_of_version_2("call", head.key).text)
    if isinstance(head, Record):
        return msgspec.structs.replace(head, key=key_of_version_2(head.kind, head.key).text)
    return head
