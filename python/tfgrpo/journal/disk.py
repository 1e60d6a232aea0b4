"""The disk under a journal: how much is free, what an error says about it, and proof that it works again."""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from tfgrpo.journal.rows import Table, Unpacker, decode_head
from tfgrpo.journal.schema import SYSTEM, Files, open_connection


def free_bytes(directory: Path) -> int:
    """What an ordinary user may still write to the file system of a directory, in bytes.

    Raises:
        OSError: it cannot be asked.
    """
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


@dataclass(frozen=True, slots=True)
class Disk:
    """How a journal deals with its disk; the defaults are for use, others for tests.

    Attributes:
        files: how the journal is reached.
        free: tells the free bytes of a directory.
        reserve: free bytes below which nothing is launched, beside what the calls in flight may need. The
            write-ahead log grows to 16 MB before it is folded into the database, which grows as well.
        pauses: seconds to wait before each attempt to go on after an I/O error; then it is final.
        full_pause: seconds between two looks at a full disk.
    """

    files: Files = SYSTEM
    free: Callable[[Path], int] = free_bytes
    reserve: int = 40 << 20
    pauses: tuple[float, ...] = (0.0, 0.1, 0.5, 1.5)
    full_pause: float = 1.0


class Trouble(enum.Enum):
    """What a failed transaction says about the disk."""

    FULL = enum.auto()
    REFUSED = enum.auto()  # any other I/O error: what is on the disk is not known
    OTHER = enum.auto()  # not the disk's fault, or nothing that another attempt could mend


#: Less free space (bytes) than this, and an I/O error is taken for a full disk: the shared memory file of the
#: log reports one like that.
_NOTHING_FREE = 128 << 10


def trouble_of(error: Exception, connection: apsw.Connection, disk: Disk, path: Path) -> Trouble:
    """What kind of trouble an exception of a transaction is."""
    if isinstance(error, apsw.FullError):
        return Trouble.FULL
    if not isinstance(error, apsw.IOError | apsw.CantOpenError | OSError):
        return Trouble.OTHER
    try:
        number = error.errno if isinstance(error, OSError) else connection.system_errno
        if number in (errno.ENOSPC, errno.EDQUOT) or disk.free(path.parent) < _NOTHING_FREE:
            return Trouble.FULL
    except (apsw.Error, OSError):
        pass  # a closed connection has no number, a lost file system no size
    return Trouble.REFUSED


def reopen(path: Path, disk: Disk, acknowledged: int, blobs: int) -> apsw.Connection:
    """Open the journal again after an I/O error, and prove that all acknowledged rows are on the disk.

    A failed sync leaves pages that the system takes for written and that are not on the disk. Opening for
    writing therefore writes the log anew and folds it into the database, with syncs that have to succeed; then
    the rows of the last commits are read back and their seals verified.

    Args:
        path: the journal.
        disk: how to open it.
        acknowledged: the last row of `log` that was acknowledged.
        blobs: the same for `blobs`.

    Raises:
        apsw.Error: the disk still refuses.
        JournalError: it is no journal any more.
        ValueError: something that was acknowledged is missing or damaged.
    """
    connection = open_connection(path, write=True, files=disk.files)
    try:
        _verify(connection, acknowledged, blobs)
    except BaseException:
        connection.close()
        raise
    return connection


#: How many of the last rows are read back: some batches of the writer.
_READ_BACK = 4_096


def _verify(connection: apsw.Connection, acknowledged: int, blobs: int) -> None:
    unpacker = Unpacker()
    for table, column, last in (
        (Table.LOG, "head", acknowledged),
        (Table.BODIES, "body", acknowledged),
        (Table.BLOBS, "body", blobs),
    ):
        first = max(1, last - _READ_BACK + 1)
        rows: list[Any] = connection.execute(
            f"SELECT id, {column} FROM {table.name.lower()} WHERE id BETWEEN ? AND ? ORDER BY id",  # noqa: S608
            (first, last),
        ).fetchall()
        if [row for row, _ in rows] != list(range(first, last + 1)):
            raise ValueError(f"acknowledged rows of {table.name.lower()} up to {last} are missing")
        for row, value in rows:
            if table is Table.LOG:
                decode_head(row, value)
            else:
                unpacker.unpack(table, row, value)
