"""The writer: drains the queue in a thread, makes one durable transaction of it, then acknowledges all at once.

While one transaction waits for the disk, the callers of the next one gather in the queue, so the number of
syncs follows the speed of the disk and not the number of calls. The thread's work is a job of the event loop's
`run_in_executor`, there only while there is something to write, so the loop knows of it: a virtual clock stands
meanwhile. When the disk fails, the batch is kept, the job ends, and a timer of the loop starts the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import apsw

from tfgrpo.errors import JournalError
from tfgrpo.journal.disk import Disk, Trouble, reopen, trouble_of
from tfgrpo.journal.rows import Packer, Table
from tfgrpo.journal.schema import close_writer, closed_error, journal_error

#: Jobs and bytes of one transaction, about: bounds the wait of the first of them. While the thread compresses
#: and writes one megabyte, the loop makes the next.
_BATCH, _BATCH_BYTES = 1_024, 1 << 20

#: Rows of one statement. A batch is filled up with empty rows to one of these sizes: a statement for each
#: number of rows would have to be compiled each time.
_SIZES = (16, 64, 256)

#: Bytes written to the log after which it is folded into the database; and what a commit writes at least (the
#: last page of each table), however small it is.
_LOG_BYTES, _COMMIT_BYTES = 16 << 20, 16 << 10

#: Seconds between two looks at a writer that has work; and how long (seconds), and how often in a row, the loop
#: steps aside for one that has not moved since the last look.
_LOOK, _STEP_ASIDE, _STEPS = 0.02, 0.0002, 20

#: With so many calls in flight the next ones are awaited: a commit costs as much for ten calls as for one, and what is
#: told together is cheaper to go on with. For this share of the time that calls take, within these bounds (seconds),
#: so that no caller notices.
_CROWD, _LINGER, _SHORTEST, _LONGEST = 32, 0.025, 0.010, 0.030

#: Callers that one turn of the event loop tells.
_AT_ONCE = 64

#: Bytes of disk that the outcome of a call in flight is expected to need at least.
_OUTCOME = 8 << 10


def linger(pace: float) -> float:
    """How long (seconds) a commit waits for company, when calls take `pace` seconds; a clock may have jumped."""
    return min(max(_LINGER * pace, _SHORTEST), _LONGEST)


class Job:
    """What becomes durable together: rows of `log` with their bodies, and the messages they refer to.

    Without rows it is acknowledged when all before it is. `settle` runs on the event loop once the rows are
    durable.
    """

    __slots__ = ("blobs", "done", "rows", "settle")

    done: asyncio.Future[JournalError | None]

    def __init__(
        self,
        rows: list[tuple[int, bytes, bytes]],
        blobs: list[tuple[int, bytes]] | None = None,
        settle: Callable[[], None] | None = None,
    ) -> None:
        self.rows = rows
        self.blobs = blobs
        self.settle = settle


@dataclass(slots=True)
class _Rows:
    """What one transaction writes, as SQLite binds it: row numbers and values in turn."""

    log: list[Any] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    blobs: list[Any] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class _Batch:
    """The jobs of one transaction, and how often the disk has refused it."""

    jobs: list[Job]
    rows: _Rows | None = None
    refusals: int = 0
    again: bool = False


class Writer:
    """Owns the writing connection.

    Args:
        connection: opened for writing; the writer closes it.
        path: the journal.
        disk: how to deal with the disk.
        last_row: the last row of `log`.
        last_blob: the last row of `blobs`.
        on_trouble: called on the event loop with a message when launching has to stop, and with None when it
            can go on.

    Attributes:
        acknowledged: the last row of `log` that is known to be on disk.
        commits: how many transactions were made durable.
        in_flight: how many attempts have no outcome yet; their outcomes need room on the disk.
        pace: how long (seconds) calls take lately.
        executor: the one thread that writes.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        path: Path,
        disk: Disk,
        last_row: int,
        last_blob: int,
        on_trouble: Callable[[str | None], None] | None = None,
    ) -> None:
        self.acknowledged = last_row
        self.commits = 0
        self.in_flight = 0
        self.pace = 0.0
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="tfgrpo-journal")
        self._path = path
        self._disk = disk
        self._on_trouble = on_trouble
        self._stored_blobs = last_blob
        self._packer = Packer()
        self._largest = _OUTCOME
        self._log_bytes = 0
        self._connection = connection

        self._jobs: deque[Job] = deque()
        self._batch: _Batch | None = None  # the thread's, kept from job to job while the disk refuses it
        self._active = False  # a drain is under way, or a timer that starts it
        self._timer: asyncio.TimerHandle | None = None  # starts the next drain on a disk that refuses
        self._ending = False
        self._broken: JournalError | None = None
        self._failure: JournalError | None = None
        self._refusal: str | None = None  # the disk refuses the batch at hand
        self._shortage: str | None = None  # the disk is nearly full
        self._doubtful = False  # what is on the disk is not known: reopen before the next transaction

        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: str | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._watching = False  # a timer looks at the free space
        self._looking = False
        self._moves = self._moves_seen = 0  # counts what the thread does while it holds the interpreter lock

        self._look_at_disk()

    # --- on the event loop -------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what broke the journal, or that it is closed.

        Raises:
            JournalError: as said.
        """
        if self._failure is not None:
            raise type(self._failure)(self._failure.message)

    @property
    def stalled(self) -> str | None:
        """Why no intent is accepted at the moment, or None."""
        return self._refusal or self._shortage

    async def ready(self) -> None:
        """Return when intents are accepted; at once when they are.

        Raises:
            JournalError: the journal is broken or closed, or belongs to another event loop.
        """
        self.check()
        while self.stalled is not None:
            waiter = self.bind().create_future()
            self._waiters.append(waiter)
            await waiter
            self.check()

    def bind(self) -> asyncio.AbstractEventLoop:
        """The event loop the journal is used from: the one it was first used from.

        Raises:
            JournalError: this is another one.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise JournalError(
                    f"The journal {self._path} is used from two event loops. Open it in the one that uses it."
                )
            self._loop = loop
            loop.call_soon(self._notice)  # it may have been opened on a disk that is full
        return loop

    def submit(self, job: Job) -> None:
        """Queue a job for the next transaction; `check` and `bind` were called before.

        Await `job.done` then: its result is None when the rows are durable, and otherwise the error.
        Cancelling that does not undo the write.
        """
        loop = self._loop
        assert loop is not None  # noqa: S101 - bound by the caller
        job.done = loop.create_future()
        self._jobs.append(job)
        if not self._active:
            self._active = True
            # Not at once: all tasks that are ready now shall be in the batch.
            loop.call_soon(self._start)

    def _start(self) -> None:
        """Let the thread drain the queue."""
        self._timer = None
        if self._loop is None or self._ending:
            return  # closing drains
        self._loop.run_in_executor(self.executor, self._drain)
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK, self._look_at_thread)

    def _start_later(self, pause: float) -> None:
        if self._loop is not None and not self._ending:
            self._timer = self._loop.call_later(pause, self._start)

    def _look_at_thread(self) -> None:
        """Step aside if the thread could not move: a busy loop can keep the interpreter lock from it.

        The loop gives the lock up often, but for microseconds, and takes it back before the thread has woken
        up; and as it does so more often than the switch interval, the thread never may ask it to wait.
        """
        if not self._active or self._loop is None:
            self._looking = False
            return
        if self._moves == self._moves_seen and self._refusal is None:
            for _ in range(_STEPS):
                time.sleep(_STEP_ASIDE)
                if self._moves == self._moves_seen:
                    break  # it waits for the disk
                self._moves_seen = self._moves
        self._moves_seen = self._moves
        self._loop.call_later(_LOOK, self._look_at_thread)

    def _notice(self) -> None:
        stalled = self.stalled
        if self._shortage is not None and self._failure is None:
            self._watch()
        if stalled is None or self._failure is not None:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if stalled != self._told and self._failure is None:
            self._told = stalled
            if self._on_trouble is not None:
                self._on_trouble(stalled)

    def _acknowledge(self, batch: list[Job], error: JournalError | None) -> None:
        if len(batch) > _AT_ONCE:
            # Each of them goes on with its work: the loop has to look at the network in between.
            asyncio.get_running_loop().call_soon(self._acknowledge, batch[_AT_ONCE:], error)
        for job in batch[:_AT_ONCE]:
            if error is None and job.settle is not None:
                job.settle()
            if not job.done.done():
                job.done.set_result(error)

    def _watch(self) -> None:
        """Look at the free space once in a while, for as long as there is too little."""
        if not self._watching and self._loop is not None and not self._ending:
            self._watching = True
            self._loop.call_later(self._disk.full_pause, self._watched)

    def _watched(self) -> None:
        self._watching = False
        if self._loop is not None and not self._ending and self._failure is None:
            self._loop.run_in_executor(self.executor, self._look_again)

    def end(self) -> None:
        """Say that nothing more is accepted; `finish` has to follow."""
        if self._failure is None:
            self._failure = closed_error(self._path)
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()

    # --- in the writer's thread --------------------------------------------------------------------------

    def finish(self) -> None:
        """Write what is queued and close the connection.

        If the disk refuses, it is tried once more; what was not acknowledged is lost then, and its callers get
        the error.
        """
        self._drain()
        self._call(self._notice)
        close_writer(self._connection, sound=not self._doubtful)

    def _drain(self) -> None:
        """Write until nothing is queued, or the disk asks for patience."""
        while True:
            if self._batch is None:
                self._batch = self._next_batch()
                if self._batch is None:
                    return
            batch = self._batch
            pause = self._store(batch) if self._broken is None else None
            if pause is not None:
                if pause > 0:
                    self._call(self._start_later, pause)
                    return
                continue
            self._batch = None
            if batch.jobs:
                self._call(self._acknowledge, batch.jobs, self._broken)
            if self._broken is None:
                self._fold_log_in()

    def _next_batch(self) -> _Batch | None:
        """Whatever is queued, at least one job; None when nothing is."""
        jobs = self._jobs
        if not jobs:
            self._active = False
            if not jobs:
                return None
            self._active = True
        self._moves += 1
        if self.in_flight > _CROWD and len(jobs) < _BATCH and not self._ending:
            time.sleep(linger(self.pace))
        batch: list[Job] = []
        size = 0
        while jobs and len(batch) < _BATCH and size < _BATCH_BYTES:
            job = jobs.popleft()
            batch.append(job)
            for _, _, body in job.rows:
                size += len(body)
            if job.blobs is not None:
                size += sum([len(blob) for _, blob in job.blobs])
        return _Batch(batch)

    def _store(self, batch: _Batch) -> float | None:
        """Make a batch durable; or how long to wait (seconds) before the next attempt.

        Returns:
            None: it is stored, or `_broken` tells why it never will be.
        """
        try:
            if batch.rows is None:
                batch.rows = self._pack(batch.jobs)
            last = self._ending
            try:
                if self._doubtful:
                    self._reopen()
                self._commit(batch.rows, batch.again)
            # A dead writer would leave its callers waiting for ever, so nothing may end the job.
            except Exception as error:  # noqa: BLE001
                batch.again = True
                trouble = trouble_of(error, self._connection, self._disk, self._path)
                self._doubtful |= not isinstance(error, apsw.FullError)
                pause = self._disk.full_pause
                if trouble is Trouble.REFUSED and batch.refusals < len(self._disk.pauses):
                    pause = 0.0 if last else self._disk.pauses[batch.refusals]
                    batch.refusals += 1
                elif trouble is not Trouble.FULL or last:
                    self._break(error)
                    return None
                self._stall(trouble, error)
                return pause
            self._refusal = None
            self._look_at_disk()
        except Exception as error:  # noqa: BLE001 - see above
            self._break(error)
        return None

    def _break(self, error: Exception) -> None:
        self._broken = error if isinstance(error, JournalError) else journal_error(error, self._path)
        if self._failure is None:
            self._failure = self._broken
        self._call(self._notice)

    def _pack(self, batch: list[Job]) -> _Rows:
        rows = _Rows()
        bodies: list[tuple[int, bytes]] = []
        blobs: list[tuple[int, bytes]] = []
        for job in batch:
            for row, head, body in job.rows:
                rows.log += row, head
                bodies.append((row, body))
            if job.blobs is not None:
                blobs += job.blobs
        if bodies:
            self._largest = max(self._largest, *[len(body) for _, body in bodies])
        rows.bodies = self._packer.pack(Table.BODIES, bodies)
        rows.blobs = self._packer.pack(Table.BLOBS, blobs)
        rows.size = sum(map(len, chain(rows.log[1::2], rows.bodies[1::2], rows.blobs[1::2])))
        return rows

    def _commit(self, rows: _Rows, again: bool) -> None:
        if not rows.log:
            return
        execute = self._connection.execute
        verb = "INSERT OR IGNORE" if again else "INSERT"  # the failed transaction may have been stored
        execute("BEGIN IMMEDIATE")
        try:
            self._moves += 1
            self._insert(verb, "log", rows.log)
            self._insert(verb, "bodies", rows.bodies)
            self._insert(verb, "blobs", rows.blobs)
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(apsw.Error):  # SQLite may have rolled back already
                execute("ROLLBACK")
            raise
        self._moves += 1
        self.commits += 1
        self._log_bytes += rows.size + _COMMIT_BYTES
        self.acknowledged = rows.log[-2]
        if rows.blobs:
            self._stored_blobs = rows.blobs[-2]

    def _insert(self, verb: str, table: str, values: list[Any]) -> None:
        """Insert many rows by one statement.

        Every statement gives up the interpreter lock and has to wait for it again: with a busy event loop,
        a statement a row would add hundreds of such waits to a transaction.
        """
        for start in range(0, len(values), 2 * _SIZES[-1]):
            chunk = values[start : start + 2 * _SIZES[-1]]
            size = next(size for size in _SIZES if 2 * size >= len(chunk))
            chunk.extend([None] * (2 * size - len(chunk)))
            self._connection.execute(_statement(verb, table, size), chunk)
            self._moves += 1

    def _fold_log_in(self) -> None:
        """Fold the log in when it has grown; callers have been acknowledged before, so nobody waits for it."""
        if self._log_bytes >= _LOG_BYTES:
            self._log_bytes = 0
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except apsw.FullError:
                pass  # the log stays what counts; it is tried again when it has grown once more
            except apsw.Error:
                self._doubtful = True
                self._batch = _Batch([])  # reopens and verifies

    def _reopen(self) -> None:
        close_writer(self._connection, sound=False)
        self._connection = reopen(self._path, self._disk, self.acknowledged, self._stored_blobs)
        self._doubtful = False
        self._log_bytes = 0

    # --- trouble, in the writer's thread ----------------------------------------------------------------

    def _look_at_disk(self) -> None:
        """Stop launching while there is still room for the outcomes of what is in flight."""
        try:
            free = self._disk.free(self._path.parent)
        except OSError:
            return
        # Twice: in the log and in the database.
        needed = self._disk.reserve + 2 * self.in_flight * self._largest
        if self._shortage is None and free < needed:
            self._shortage = (
                f"The disk of the journal {self._path} is nearly full ({free >> 20} MB free, {needed >> 20} MB "
                f"wanted for {self.in_flight} calls in flight). No further call is launched; calls in flight "
                "end and are kept. Free space, and the run goes on by itself."
            )
        elif self._shortage is not None and free >= needed + needed // 8:
            self._shortage = None
        if self.stalled != self._told:
            self._call(self._notice)

    def _look_again(self) -> None:
        self._look_at_disk()
        if self._shortage is not None:
            self._call(self._notice)

    def _stall(self, trouble: Trouble, error: Exception) -> None:
        if trouble is Trouble.FULL:
            self._refusal = (
                f"The disk is full: the journal {self._path} cannot grow. No further call is launched, nothing "
                "acknowledged is lost, and what has ended waits in memory. Free space, and the run goes on by "
                "itself."
            )
        else:
            self._refusal = (
                f"The disk refused to write the journal {self._path} ({error}). No further call is launched "
                "while it is opened again and verified; nothing acknowledged is lost."
            )
        self._call(self._notice)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # a closed loop has no callers left to tell
                self._loop.call_soon_threadsafe(function, *arguments)


@functools.cache
def _statement(verb: str, table: str, size: int) -> str:
    marks = ",".join(["(?,?)"] * size)
    return f"{verb} INTO {table} SELECT column1, column2 FROM (VALUES {marks}) WHERE column1 IS NOT NULL"  # noqa: S608
