"""The writer thread: drains the queue, makes one durable transaction of it, then acknowledges all at once.

While one transaction waits for the disk, the callers of the next one gather in the queue, so the number of
syncs follows the speed of the disk and not the number of calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import apsw

from tfgrpo.errors import JournalError
from tfgrpo.journal.codec import Packer
from tfgrpo.journal.schema import closed_error, journal_error


class Table(enum.StrEnum):
    """The tables rows are added to. The last column of those in `PACKED` is a body, compressed here."""

    BLOBS = "blobs"
    CALLS = "calls"
    OUTCOMES = "outcomes"
    REPLIES = "replies"
    RECORDS = "records"


PACKED = frozenset({Table.BLOBS, Table.REPLIES, Table.RECORDS})

#: Rows as SQLite binds them, in the order of the table's columns.
Row = tuple[Any, ...]

#: Jobs of one transaction at most: bounds the wait of the first of them and the memory of the batch.
_BATCH = 1_024

#: Rows of one statement at most: see `_insert`.
_CHUNK = 256


@dataclass(slots=True, eq=False)
class Job:
    """Rows that become durable together. `settle` runs on the event loop once they are."""

    rows: Sequence[tuple[Table, Row]]
    settle: Callable[[], None] | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    error: JournalError | None = None


class Writer:
    """Owns the writing connection. Every failure is final: later jobs are refused with the same message.

    Args:
        connection: configured for durable commits; the writer closes it.
        path: the journal, for messages.
    """

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self.commits = 0
        self._connection = connection
        self._path = path
        self._packer = Packer()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: JournalError | None = None
        # A daemon: what it has acknowledged is on disk, and an exit without close must not hang.
        self._thread = threading.Thread(target=self._run, name="tfgrpo-journal", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what broke the journal, or that it is closed.

        Raises:
            JournalError: as said.
        """
        if self._failure is not None:
            raise type(self._failure)(self._failure.message)

    def submit(self, job: Job) -> None:
        """Queue a job for the next transaction; call from the event loop.

        Raises:
            JournalError: the journal is broken or closed, or belongs to another event loop.
        """
        self.check()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise JournalError(
                f"The journal {self._path} is used from two event loops. Open it in the one that uses it."
            )
        self._jobs.put(job)

    @staticmethod
    async def wait(job: Job) -> None:
        """Return when the job's rows are durable; cancelling the wait does not undo the write.

        Raises:
            JournalError: the transaction failed.
            JournalFullError: it failed because the disk is full.
        """
        await job.done.wait()
        if job.error is not None:
            raise type(job.error)(job.error.message)

    def close(self) -> None:
        """Write what is queued, end the thread, close the connection. Blocks for one commit."""
        if self._failure is None:
            self._failure = closed_error(self._path)
        self._jobs.put(None)
        self._thread.join()
        with contextlib.suppress(apsw.Error):  # a last checkpoint may fail; the log itself is on disk
            self._connection.close()

    # --- in the writer thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        broken: JournalError | None = None
        for batch in self._batches():
            if broken is None:
                try:
                    self._commit(batch)
                # A dead writer would leave its callers waiting for ever, so nothing may end this thread.
                except Exception as error:  # noqa: BLE001
                    broken = self._failure = journal_error(error, self._path)
            for job in batch:
                job.error = broken
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # a closed loop has no callers left to tell
                    self._loop.call_soon_threadsafe(_acknowledge, batch)

    def _batches(self) -> Iterator[list[Job]]:
        """Whatever is queued, at least one job at a time, until the closing None."""
        while (job := self._jobs.get()) is not None:
            batch = [job]
            while len(batch) < _BATCH:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    yield batch
                    return
                batch.append(job)
            yield batch

    def _commit(self, batch: list[Job]) -> None:
        rows: dict[Table, list[Row]] = {table: [] for table in Table}
        for table, row in chain.from_iterable(job.rows for job in batch):
            rows[table].append(row)
        if not any(rows.values()):
            return
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            rows[Table.BLOBS] = self._unknown(rows[Table.BLOBS])
            for table in Table:
                self._insert(table, rows[table])
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(apsw.Error):  # SQLite may have rolled back already
                execute("ROLLBACK")
            raise
        self.commits += 1

    def _unknown(self, blobs: list[Row]) -> list[Row]:
        """The blobs that are not stored yet, each once: known content is not even compressed."""
        bodies: dict[bytes, bytes] = {row[0]: row[1] for row in blobs}
        for hashes in _chunks(list(bodies)):
            marks = ",".join("?" * len(hashes))
            known = self._connection.execute(
                f"SELECT hash FROM blobs WHERE hash IN ({marks})",  # noqa: S608 - only question marks
                hashes,
            )
            for (key,) in known:
                del bodies[key]
        return list(bodies.items())

    def _insert(self, table: Table, rows: list[Row]) -> None:
        """Insert many rows by one statement.

        Every statement gives up the interpreter lock and has to wait for it again: with a busy event loop,
        a statement a row would add hundreds of such waits to a transaction.
        """
        if table in PACKED:
            bodies = self._packer.pack([row[-1] for row in rows])
            rows = [(*row[:-1], body) for row, body in zip(rows, bodies, strict=True)]
        for chunk in _chunks(rows):
            mark = "(" + ",".join("?" * len(chunk[0])) + ")"
            self._connection.execute(
                f"INSERT INTO {table} VALUES {','.join([mark] * len(chunk))}",  # noqa: S608 - only question marks
                tuple(chain.from_iterable(chunk)),
            )


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _acknowledge(batch: list[Job]) -> None:
    for job in batch:
        if job.error is None and job.settle is not None:
            job.settle()
        job.done.set()
