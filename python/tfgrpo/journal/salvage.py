"""Recover a damaged journal: every row whose seal still verifies, into a new file that can be read and resumed.

SQLite finds rows through pages that point to pages; one flipped bit there hides sound rows. This looks at the
bytes instead: a row of ours has a form that is easily recognised wherever it lies in a page, and its seal says
whether it is one, of which table, and sound. Rows never change, so any copy of a row that verifies is the row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.journal.rows import (
    Head,
    Header,
    Intent,
    Outcome,
    Record,
    Table,
    Unpacker,
    check_sum,
    decode_head,
    encode_head,
    seal,
)
from tfgrpo.journal.schema import PAGE, VERSION, write_new
from tfgrpo.types import EffectStatus, Struct

#: The header of a stored row: its own length, NULL for the row number, then the type and size of one blob.
_ROW = re.compile(rb"[\x03-\x07]\x00")

#: How an intent of version 2 begins: an array of six, the first of them its tag.
_OLD_INTENT = b"\x96\xa1i"

#: A reference to a row of `blobs` as it stands in a folded value.
_REFERENCE = re.compile(rb'\{"content":"(\d+)","role":"@"\}')

#: What of a row of more than the first number of bytes stays in its page: SQLite's file format, chapter 1.6.
_ALL_LOCAL, _LEAST_LOCAL, _OVERFLOW = PAGE - 35, (PAGE - 12) * 32 // 255 - 23, PAGE - 4


class Salvage(Struct, frozen=True):
    """What was recovered: attempts of calls, how many of them have no outcome (left), and records.

    `lost` counts the rows that are damaged, missing, or of no use without another one that is.
    """

    calls: int
    open_calls: int
    records: int
    lost: int


def salvage(path: Path, target: Path) -> Salvage:
    """Write a new journal with everything of a damaged one that is sound, in the version of the damaged one.

    A call whose outcome is lost is open again: resuming pays it once more. What refers to something lost is
    lost too: an outcome without its intent, a request or a record without one of its messages. Blocks, and
    holds the whole journal in memory.

    Args:
        path: the damaged journal; it and the log beside it are only read. No engine may work on it.
        target: the new journal; must not exist.

    Raises:
        JournalError: nothing of a journal is left in it, a file cannot be read, or `target` cannot be written.
    """
    found: dict[Table, dict[int, bytes]] = {table: {} for table in Table}
    try:
        for table, row, value in _sound_rows(path):
            found[table][row] = value
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be read: {error}. Check the path and its permissions."
        ) from error
    if not found[Table.LOG]:
        raise JournalError(f"Nothing of a journal is left in {path}. Restore the file from a copy.")
    rebuilt = _Rebuilt(found)
    version = _version(found[Table.LOG])
    write_new(target, rebuilt.log, rebuilt.bodies, sorted(found[Table.BLOBS].items()), version)
    return rebuilt.report()


def _version(log: dict[int, bytes]) -> int:
    """The version of the file that rows of `log` come from: an intent of version 2 is an array of six."""
    return 2 if any(value[:3] == _OLD_INTENT for value in log.values()) else VERSION


class _Rebuilt:
    """The rows of the new journal, numbered without gaps."""

    def __init__(self, found: dict[Table, dict[int, bytes]]) -> None:
        self.log: list[tuple[int, bytes]] = []
        self.bodies: list[tuple[int, bytes]] = []
        self._found = found
        self._unpacker = Unpacker()
        self._calls: dict[int, int] = {}
        self._outcomes = self._records = 0
        header = self._body(1)
        self._headless = header is None
        self._add(Header(), header or b"{}")
        for row in sorted(found[Table.LOG]):
            self._take(row, decode_head(row, found[Table.LOG][row]))

    def report(self) -> Salvage:
        rows = max(*self._found[Table.LOG], *self._found[Table.BODIES], 1)
        lost = rows - len(self.log) + self._headless
        lost += max(self._found[Table.BLOBS], default=0) - len(self._found[Table.BLOBS])
        return Salvage(len(self._calls), len(self._calls) - self._outcomes, self._records, lost)

    def _take(self, row: int, head: Head) -> None:
        body = self._body(row)
        if isinstance(head, Outcome):
            failed = head.status is EffectStatus.FAILED
            if head.call in self._calls and (failed or body is not None):
                call = self._calls[head.call]
                self._add(msgspec.structs.replace(head, call=call), b"" if body is None else body)
                self._outcomes += 1
        elif not isinstance(head, Header) and body is not None and self._whole(body):
            self._add(head, body)
            if isinstance(head, Intent):
                self._calls[row] = len(self.log)
            self._records += isinstance(head, Record)

    def _add(self, head: Head, body: bytes) -> None:
        row = len(self.log) + 1
        self.log.append((row, encode_head(row, head)))
        self.bodies.append((row, seal(Table.BODIES, row, body)))

    def _body(self, row: int) -> bytes | None:
        value = self._found[Table.BODIES].get(row)
        return None if value is None else self._unpacker.unpack(Table.BODIES, row, value)

    def _whole(self, body: bytes) -> bool:
        blobs = self._found[Table.BLOBS]
        return all(int(number) in blobs for number in _REFERENCE.findall(body))


def _sound_rows(path: Path) -> Iterator[tuple[Table, int, bytes]]:
    """Every row in any page of the database or of its log whose seal verifies."""
    database = path.read_bytes()
    images = [
        (number, database[start : start + PAGE])
        for number, start in enumerate(range(0, len(database), PAGE), 1)
    ]
    images += _log_pages(path.with_name(path.name + "-wal"))
    newest = dict(images)
    for _, image in images:
        for match in _ROW.finditer(image):
            yield from _row_at(image, match.start(), newest)


def log_is_cut(path: Path, reachable: int, last_row: int) -> bool:
    """Whether a write-ahead log holds acknowledged transactions that SQLite does not reach.

    SQLite stops at the first frame that does not verify, and takes it for the end of what a crash left. But the
    writer begins a transaction only when the one before is synced, so a crash leaves at most one unfinished:
    where two more follow, an acknowledged one is damaged.

    Args:
        path: the log; it need not exist.
        reachable: how many frames SQLite accepts.
        last_row: the last row of `log` that it sees.

    Raises:
        OSError: the file cannot be read.
    """
    log = path.read_bytes() if path.is_file() else b""
    sound = _sums(log[:24]) == (log[24:28], log[28:32])
    # Frames of an earlier use stand behind those of this one, and have other salts.
    salts = log[16:24] if sound else log[40:48]
    starts = range(32 + reachable * (PAGE + 24), len(log) - 24, PAGE + 24)
    frames = [start for start in starts if log[start + 8 : start + 16] == salts]
    if sum(log[start + 4 : start + 8] != bytes(4) for start in frames) < 2:
        return False
    if sound:
        return True
    # Without a header, they may be those of an earlier use, which are in the database.
    pages = _log_pages(path)
    newest = dict(pages)
    return any(
        table is Table.LOG and row > last_row
        for _, image in pages
        for match in _ROW.finditer(image)
        for table, row, _ in _row_at(image, match.start(), newest)
    )


def _sums(header: bytes) -> tuple[bytes, bytes]:
    """The check sums of a log's header."""
    order: Literal["little", "big"] = "big" if header[3:4] == b"\x83" else "little"
    first = second = 0
    for start in range(0, len(header) - 7, 8):
        first = (first + int.from_bytes(header[start : start + 4], order) + second) & 0xFFFFFFFF
        second = (second + int.from_bytes(header[start + 4 : start + 8], order) + first) & 0xFFFFFFFF
    return first.to_bytes(4), second.to_bytes(4)


def _log_pages(path: Path) -> list[tuple[int, bytes]]:
    """The pages in a write-ahead log: 32 bytes, then frames of 24 bytes and a page.

    Frames of an earlier use of the file stand behind the last one, and are told by their salts. What stands
    behind the last commit was never acknowledged; it does no harm.
    """
    log = path.read_bytes() if path.is_file() else b""
    salts = {log[16:24], log[40:48]}  # of the file and of its first frame: one of them may be damaged
    return [
        (int.from_bytes(log[start : start + 4]), log[start + 24 : start + 24 + PAGE])
        for start in range(32, len(log) - 24, PAGE + 24)
        if log[start + 8 : start + 16] in salts
    ]


def _row_at(image: bytes, place: int, pages: dict[int, bytes]) -> Iterator[tuple[Table, int, bytes]]:
    """The row whose header stands at a place of a page, if there is one and it is sound."""
    header = image[place]
    kind, end = _number(image, place + 2)
    if end != place + header or kind < 12 or kind % 2:
        return
    size = header + (kind - 12) // 2
    # The row number and the size stand before the header. Only the last byte of a number is below 128.
    start = place - 1
    while start > 0 and image[start - 1] >= 0x80 and place - start < 9:
        start -= 1
    if not any(_number(image, start - length) == (size, start) for length in range(1, min(6, start + 1))):
        return
    row, end = _number(image, start)
    if end != place:
        return
    payload = _payload(image, place, size, pages)[header:]
    for table in Table:
        if payload[-4:] == check_sum(table, row, payload[:-4]):
            yield table, row, payload


def _payload(image: bytes, place: int, size: int, pages: dict[int, bytes]) -> bytes:
    """A row of some size from a place on, with what stands on other pages; short if a page is missing."""
    if size <= _ALL_LOCAL:
        return image[place : place + size]
    local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % _OVERFLOW
    if local > _ALL_LOCAL:
        local = _LEAST_LOCAL
    parts = [image[place : place + local]]
    number, missing = int.from_bytes(image[place + local : place + local + 4]), size - local
    while missing > 0 and number in pages:
        page = pages[number]
        parts.append(page[4 : 4 + min(missing, _OVERFLOW)])
        missing -= _OVERFLOW
        number = int.from_bytes(page[:4])
    return b"".join(parts)


def _number(image: bytes, place: int) -> tuple[int, int]:
    """One of SQLite's numbers (seven bits a byte, five bytes at most here), and where it ends; -1 if none."""
    value = 0
    for end in range(place, min(place + 5, len(image))):
        value = value << 7 | image[end] & 0x7F
        if image[end] < 0x80:
            return value, end + 1
    return -1, place
