"""The file: tables, connections, the engine's lock, and the one place where SQLite's errors become ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from tfgrpo.errors import JournalError, JournalFullError
from tfgrpo.journal.rows import Header, Table, encode_head, seal

#: "tfgj": tells a journal from any other SQLite file.
APPLICATION_ID = int.from_bytes(b"tfgj")

#: Raised with every change of the tables or of the encodings. A newer file is refused, never guessed at. A file of
#: the version before can be read, and not written: its keys have another form, and seeds follow from keys.
VERSION, READABLE = 3, (2, 3)

#: Bytes of a page. SQLite's own default today; `salvage` reads pages by itself and has to know.
PAGE = 4096

#: Row numbers and sealed values.
Rows = Sequence[tuple[int, bytes]]

# Rows are only ever added, and each table is found by row number alone: what opening needs of them is in
# `log`, whose rows are small. See rows.py for what they hold.
_TABLES = """
CREATE TABLE log(id INTEGER PRIMARY KEY, head BLOB NOT NULL) STRICT;
CREATE TABLE bodies(id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE blobs(id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
"""


def journal_error(error: Exception, path: Path) -> JournalError:
    """The error of ours that stands for a foreign one; names the file and the remedy."""
    detail = str(error) or type(error).__name__
    resume = f"run `tfgrpo resume {path.parent}`"
    match error:
        case apsw.FullError():
            return JournalFullError(
                f"The disk is full: the journal {path} cannot grow. No further call is launched, and "
                f"everything acknowledged so far is kept; free space and {resume}."
            )
        case apsw.BusyError() | apsw.LockedError():
            return JournalError(
                f"Another program holds the journal {path} locked ({detail}). Everything acknowledged so far "
                f"is kept; end that program (a database shell, a backup) and {resume}."
            )
        case apsw.CantOpenError() | apsw.PermissionsError() | apsw.ReadOnlyError() | apsw.AuthError():
            return JournalError(
                f"The journal {path} cannot be opened or written ({detail}). Check that its directory exists "
                f"and that this user may write to it and to the files in it, then {resume}."
            )
        case apsw.ConnectionClosedError():
            return closed_error(path)
        case apsw.CorruptError() | apsw.NotADBError() | apsw.SQLError() | ValueError():
            return JournalError(
                f"The journal {path} is damaged, or is no journal of this version of tfgrpo ({detail}). "
                "Restore the file from a copy, recover what is sound with `tfgrpo.journal.salvage`, or start a "
                "new run."
            )
        case _:
            return JournalError(
                f"The journal {path} cannot be read or written: {detail}. No further call is launched, and "
                f"everything acknowledged so far is kept; check the disk, its free space and file-size "
                f"limits, and {resume}."
            )


def closed_error(path: Path) -> JournalError:
    """The error for using a journal after `close`."""
    return JournalError(f"The journal {path} is closed: open it again with Journal.open or JournalReader.")


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Convert what SQLite and the decoders raise about the file into JournalError."""
    try:
        yield
    except (apsw.Error, ValueError, OSError) as error:
        raise journal_error(error, path) from error


def renew_log(path: Path) -> None:
    """Write a write-ahead log once more as it is, and sync it.

    What an engine before us failed to sync is in the system's memory, which takes it for written, and may not
    be on the disk, though a later sync says that all is well. What is written anew the disk has to confirm.

    Args:
        path: the log; it need not exist.

    Raises:
        OSError: the disk refuses.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("r+b", buffering=0) as file:
        while data := file.read(1 << 20):
            file.seek(-len(data), os.SEEK_CUR)
            file.write(data)
        os.fsync(file.fileno())


@dataclass(frozen=True, slots=True)
class Files:
    """How the file is reached; the defaults are for use, others for tests.

    Attributes:
        vfs: the name of SQLite's file layer; None for the system's.
        renew_log: see there.
    """

    vfs: str | None = None
    renew_log: Callable[[Path], None] = renew_log


SYSTEM = Files()


def connect(path: Path, *, write: bool, files: Files = SYSTEM) -> apsw.Connection:
    """Open a connection to an existing journal and check that it is one.

    Args:
        path: the journal.
        write: for the writer, which holds the lock; otherwise nothing can be changed through it.
        files: how to reach it.

    Raises:
        JournalError: no file, no journal, damaged, or written by a newer version.
    """
    if not path.is_file():
        raise JournalError(
            f"There is no journal at {path}. Name the directory of an existing run, or start a new one."
        )
    with guarded(path):
        return open_connection(path, write=write, files=files)


def open_connection(path: Path, *, write: bool, files: Files) -> apsw.Connection:
    """`connect`, with the errors of SQLite and the system as they are.

    For writing, the whole write-ahead log is folded into the database and begun anew: nothing is appended to a
    log whose end we did not write.

    Raises:
        apsw.BusyError: somebody else reads from the log, for longer than the busy timeout.
    """
    if write:
        files.renew_log(path.with_name(path.name + "-wal"))
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=files.vfs)
    try:
        connection.set_busy_timeout(10_000)
        _check_identity(connection, path, write=write)
        if write:
            configure_writer(connection)
            _fold_log_in(connection)
        else:
            # Not opened read-only: such a connection cannot remove the -wal and -shm files it may create.
            connection.pragma("query_only", True)
    except BaseException:
        connection.close()
        raise
    return connection


def _fold_log_in(connection: apsw.Connection) -> None:
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0]
    if busy:
        raise apsw.BusyError("a reader keeps the write-ahead log from being folded in")


def configure_writer(connection: apsw.Connection) -> None:
    """Set what makes a commit durable: the write-ahead log is synced before a commit returns."""
    connection.pragma("synchronous", "FULL")
    connection.pragma("fullfsync", True)  # macOS: through the drive's cache as well
    connection.pragma("wal_autocheckpoint", 0)  # the writer does it, after it has acknowledged


def close_reader(connection: apsw.Connection, path: Path) -> None:
    """Close a connection for reading.

    The last connection of all would fold the log into the database. What a dead engine left in it may not be
    on the disk (see `renew_log`), so that is left to the next engine.
    """
    with contextlib.suppress(apsw.Error, OSError):
        log = path.with_name(path.name + "-wal")
        if log.is_file() and log.stat().st_size:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    with contextlib.suppress(apsw.Error):
        connection.close()


def close_writer(connection: apsw.Connection, *, sound: bool) -> None:
    """Close the connection for writing; the log is folded in if all that was written to it is known to be on disk."""
    with contextlib.suppress(apsw.Error):  # the log itself is on disk
        if sound:
            connection.set_busy_timeout(100)
            _fold_log_in(connection)
        else:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    with contextlib.suppress(apsw.Error):
        connection.close()


def _check_identity(connection: apsw.Connection, path: Path, *, write: bool) -> None:
    version = connection.pragma("user_version")
    if connection.pragma("application_id") != APPLICATION_ID:
        raise JournalError(
            f"{path} is not a tfgrpo journal. Name the directory of a run, or start a new one."
        )
    if version not in READABLE:
        raise JournalError(
            f"The journal {path} has schema version {version}, and this tfgrpo reads version {VERSION}. Use "
            "the version of tfgrpo that wrote it, or start a new run."
        )
    if write and version != VERSION:
        raise JournalError(
            f"The journal {path} was written by an earlier version of tfgrpo (schema version {version}). Reports, "
            "`show` and `export` read it as it is. Resume it with the version of tfgrpo that wrote it, or start a "
            "new run."
        )


def header_rows(header: bytes) -> tuple[Rows, Rows]:
    """The first row of a journal and its body."""
    return [(1, encode_head(1, Header()))], [(1, seal(Table.BODIES, 1, header))]


def write_new(path: Path, log: Rows, bodies: Rows, blobs: Rows = (), version: int = VERSION) -> None:
    """Write a new journal: complete under its name or not there at all, whenever the process dies.

    The caller holds the lock of `path`.

    Args:
        path: the journal.
        log: its first rows, sealed.
        bodies: their bodies.
        blobs: the messages they refer to.
        version: of the file.

    Raises:
        JournalError: the file exists or cannot be written.
    """
    if path.exists():
        raise JournalError(
            f"The journal {path} exists already. Continue that run with `tfgrpo resume {path.parent}`, or "
            "choose another run directory."
        )
    building = path.with_name(path.name + ".new")
    with guarded(path):
        try:
            for left in ("", "-wal", "-shm"):
                building.with_name(building.name + left).unlink(missing_ok=True)
            with contextlib.closing(apsw.Connection(str(building))) as connection:
                connection.pragma("page_size", PAGE)
                mode = connection.pragma("journal_mode", "wal")
                if mode != "wal":
                    raise JournalError(
                        f"The file system of {path} cannot hold a write-ahead log (SQLite offers {mode!r}). "
                        "Put the run directory on a local disk."
                    )
                configure_writer(connection)
                with connection:
                    connection.execute(_TABLES)
                    connection.executemany("INSERT INTO log VALUES (?, ?)", log)
                    connection.executemany("INSERT INTO bodies VALUES (?, ?)", bodies)
                    connection.executemany("INSERT INTO blobs VALUES (?, ?)", blobs)
                    connection.pragma("application_id", APPLICATION_ID)
                    connection.pragma("user_version", version)
                # Closing would fold the log in as well, and say nothing if the disk refuses.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            log_left = building.with_name(building.name + "-wal")
            if log_left.exists() and log_left.stat().st_size:
                raise JournalError(
                    f"The journal {path} cannot be created: the disk did not take all of it. Check the free space, and "
                    "start the run again."
                )
            building.rename(path)
            _sync_directory(path.parent)
        except OSError as error:
            raise JournalError(
                f"The journal {path} cannot be created: {error}. Check the directory, its permissions and "
                "the free space."
            ) from error


def _sync_directory(directory: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EngineLock:
    """One engine a run: an advisory lock on a sidecar file, which the system drops when the process dies.

    It is an exclusive SQLite transaction on an empty database. Unlike flock it is not inherited by forked
    children, so an orphaned worker cannot hold a dead engine's run; unlike plain POSIX locks it also
    excludes a second opener in the same process.

    Raises:
        JournalError: another engine holds the lock, or the sidecar file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        with guarded(path):
            connection = apsw.Connection(f"{path}.lock")
            try:
                connection.pragma("journal_mode", "off")
                connection.execute("BEGIN EXCLUSIVE")
            except apsw.BusyError as error:
                connection.close()
                raise JournalError(
                    f"Another tfgrpo process is working on {path.parent}. Wait for it to end, or stop it, "
                    "and try again; reports can be read meanwhile."
                ) from error
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def release(self) -> None:
        """Let the next engine in. The empty file stays: removing it would race with the next opener."""
        self._connection.close()
