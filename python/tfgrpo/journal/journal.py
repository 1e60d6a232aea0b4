"""The writing side: intents before requests are sent, outcomes before they are used, terminal records."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import msgspec

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal.codec import content_hash, encode, fold
from tfgrpo.journal.contents import Contents
from tfgrpo.journal.disk import Disk
from tfgrpo.journal.reader import JournalReader
from tfgrpo.journal.rows import CallStatus, Intent, Outcome, Record, encode_head
from tfgrpo.journal.salvage import log_is_cut
from tfgrpo.journal.schema import EngineLock, connect, guarded, header_rows, write_new
from tfgrpo.journal.writer import Job, Writer
from tfgrpo.types import Fault, ModelReply, ModelRequest, Role, Struct, Usage

S = TypeVar("S", bound=msgspec.Struct)

_NO_USAGE = Usage()

#: The weight of the newest call in what calls take lately.
_NEWEST = 0.02

_DISK = Disk()

#: What is called on the event loop when launching has to stop (with a paragraph) and when it goes on (None).
OnTrouble = Callable[[str | None], None]


_NONE: dict[str, tuple[int, bytes]] = {}


class CallState(Struct, frozen=True):
    """The newest attempt of a logical call: its reply when completed, its fault when failed.

    An OPEN attempt found after opening was in flight when the last engine died: the next attempt is paid
    on top of it.
    """

    attempt: int
    state: CallStatus
    digest: str
    reply: ModelReply | None = None
    fault: Fault | None = None


class _Call(msgspec.Struct, gc=False):
    """What is kept in memory of the newest attempt of a call.

    `row` is that of its intent, `end` that of its outcome once there is one on the way or on disk: then
    `state` tells which.
    """

    row: int
    attempt: int
    role: Role
    digest: bytes
    at: float
    state: CallStatus = CallStatus.OPEN
    end: int = 0


class Journal:
    """The one writing side of a run's journal.

    The promise: a completed call is never lost and never paid twice; only calls in flight at a crash can be,
    and they are counted (`JournalReader.open_intents`). To keep it, await `intend` before a request is sent
    and `complete` before its reply is used.

    Keys are logical ("practice/000/002/t017/group/0"); attempts of a key count upwards and carry the same
    request. Only requests and replies are stored: no header and no address, so no secret reaches the file.

    Use it from one event loop. Each writing method returns when its rows are on disk. Cancelling it does not
    undo the write: the rows are queued before the first wait and become durable all the same.

    When the disk is full or refuses, new intents wait (see `ready`), and what has ended waits in memory until
    it is stored. A full disk may last as long as it takes; after any other I/O error the file is opened again
    and verified a few times. If that does not help, the journal is broken for good: all waiting callers get
    the error and all later ones are refused with the same message. Nothing acknowledged is ever lost.

    Create one with `create` or `open`, and close it, or use it as an async context manager.

    Attributes:
        header: what the run was created with.
        reader: the reading side of the same file, for the thread of the event loop.
        seconds_a_call: how long the completed calls of earlier engines took in the mean, by role.
    """

    def __init__(
        self,
        lock: EngineLock,
        reader: JournalReader,
        clock: Callable[[], float],
        on_trouble: OnTrouble | None,
        disk: Disk,
    ) -> None:
        self.reader = reader
        self.header: dict[str, Any] = reader.header
        self._lock = lock
        self._closing = threading.Lock()
        self._closed = False
        self._clock = clock
        self._path = reader.path
        self._calls: dict[str, _Call] = {}
        self._records: dict[str, dict[str, tuple[int, bytes]]] = {}
        self._last_row = self._load()
        with guarded(self._path):
            if log_is_cut(Path(f"{self._path}-wal"), reader.log_frames(), self._last_row):
                raise reader.damaged("its write-ahead log is damaged in the middle")
        last_blob = reader.last_blob()
        self._contents = Contents(last_blob)
        self._writer = Writer(
            connect(self._path, write=True, files=disk.files),
            self._path,
            disk,
            self._last_row,
            last_blob,
            on_trouble,
        )

    def _load(self) -> int:
        """Read the heads of all rows; returns the last row."""
        calls, totals, row = self._calls, self.reader.totals, 0
        intents: dict[int, _Call] = {}
        took: dict[Role, list[float]] = {role: [0, 0.0] for role in Role}
        for row, head in self.reader.heads(0):
            if type(head) is Intent:
                call = calls[head.key] = _Call(row, head.attempt, head.role, head.digest, head.at)
                intents[row] = call
                totals.intents += 1
            elif type(head) is Outcome:
                try:
                    ended = intents.pop(head.call)
                except KeyError:
                    raise self.reader.damaged(f"row {row} ends an attempt that is not open") from None
                ended.state, ended.end = head.status, row
                if head.status is CallStatus.COMPLETED:
                    mean = took[head.role]
                    mean[0] += 1
                    mean[1] += head.at - ended.at
                totals.add_outcome(head)
            elif type(head) is Record:
                self._records.setdefault(head.kind, {})[head.key] = row, head.digest
        totals.last = row
        self._left_open = list(intents.values())
        self.seconds_a_call = {
            role: seconds / count for role, (count, seconds) in took.items() if seconds > 0
        }
        return row

    @classmethod
    def create(
        cls,
        path: Path,
        header: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.time,
        on_trouble: OnTrouble | None = None,
        _disk: Disk = _DISK,
    ) -> Journal:
        """Start the journal of a new run and open it.

        Args:
            path: the file; its directory exists.
            header: JSON values that describe the run (configuration hash, seed, …).
            clock: gives the seconds since the epoch that intents and outcomes are stamped with.
            on_trouble: called on the event loop with one paragraph when the disk is full or refuses and
                launching has to stop, and with None when it goes on.

        Raises:
            JournalError: the file exists, is being worked on, or cannot be written.
        """
        text = encode(dict(header))
        lock = EngineLock(path)
        try:
            write_new(path, *header_rows(text))
            return cls._start(path, lock, clock, on_trouble, _disk)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        on_trouble: OnTrouble | None = None,
        _disk: Disk = _DISK,
    ) -> Journal:
        """Open the journal of an earlier run. Blocks less than a second for 200,000 calls.

        The heads of all rows are read and their seals verified here; bodies, gigabytes in a long run, are
        verified when they are read.

        Args:
            path: the file.
            clock: see `create`.
            on_trouble: see `create`.

        Raises:
            JournalError: no file, another engine works on it, damaged, or of another version.
        """
        if not path.is_file():
            connect(path, write=False)  # says so, before a lock file appears
        lock = EngineLock(path)
        try:
            return cls._start(path, lock, clock, on_trouble, _disk)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _start(
        cls,
        path: Path,
        lock: EngineLock,
        clock: Callable[[], float],
        on_trouble: OnTrouble | None,
        disk: Disk,
    ) -> Journal:
        reader = JournalReader(path, _files=disk.files)
        try:
            return cls(lock, reader, clock, on_trouble, disk)
        except BaseException:
            reader.close()
            raise

    @property
    def stalled(self) -> str | None:
        """Why no intent is accepted just now, or None: see `ready`."""
        return self._writer.stalled

    async def ready(self) -> None:
        """Wait while no intent is accepted: the disk is full, or refused and is being verified.

        Returns at once when all is well. Cancelling it changes nothing.

        Raises:
            JournalError: the journal is broken or closed.
        """
        await self._writer.ready()

    # --- calls -------------------------------------------------------------------------------------------

    def last(self, key: str, request: ModelRequest | None = None) -> CallState | None:
        """The newest attempt of a call, or None if it was never intended.

        Args:
            key: the logical key.
            request: what would be sent now. When given, it must be what was journaled.

        Raises:
            JournalMismatchError: the journaled request differs from `request`.
            JournalError: the file cannot be read.
        """
        call = self._calls.get(key)
        if call is None:
            return None
        if request is not None:
            self._same_request(key, call, content_hash(fold(request)))
        state = call.state
        return CallState(
            call.attempt,
            state,
            call.digest.hex(),
            self.reader.reply_of(call.end) if state is CallStatus.COMPLETED else None,
            self.reader.fault_of(call.end) if state is CallStatus.FAILED else None,
        )

    def left_open(self) -> Iterator[tuple[Role, ModelRequest]]:
        """The attempts that earlier engines had in flight when they ended: they may have been paid.

        The same as the open ones of `reader.calls()` when the journal was opened, without reading all calls.

        Raises:
            JournalError: a request cannot be read.
        """
        for call in self._left_open:
            yield call.role, self.reader.value(call.row, ModelRequest)

    async def intend(self, key: str, attempt: int, role: Role, request: ModelRequest) -> None:
        """Make the intent of one attempt durable; send the request only after this returns.

        Waits while the disk is full. Cancelled before it starts or in that wait, it writes nothing. Cancelled
        later, the intent stays open, and counts as possibly paid unless `fail` says otherwise.

        Raises:
            JournalMismatchError: an earlier attempt of the key carried another request.
            JournalError: the call is completed already, `attempt` is not new, or the journal is broken.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        writer = self._writer
        if writer.stalled is not None:
            await writer.ready()
        writer.check()
        writer.bind()
        digest = content_hash(fold(request))
        known = self._calls.get(key)
        if known is not None:
            self._same_request(key, known, digest)
            if known.end and known.state is not CallStatus.FAILED:
                raise JournalError(f"The call {key!r} has its outcome in {self._path}: take it from `last`.")
        if attempt < 0 or (known is not None and attempt <= known.attempt):
            newest = "none" if known is None else known.attempt
            raise JournalError(
                f"Attempt {attempt} of the call {key!r} is not new (newest in {self._path}: {newest}). "
                "Attempts count upwards from 0."
            )
        row = self._last_row + 1
        now = self._clock()
        head = _sealed(row, Intent(key, attempt, role, digest, now))
        body, blobs = self._contents.store(request)
        job = Job(row, head, body, blobs)
        writer.submit(job)
        self._last_row = row
        if known is None or known.end:
            writer.in_flight += 1  # an attempt that was cut off has no outcome to come
        self._calls[key] = _Call(row, attempt, role, digest, now)
        error = await job.done
        if error is not None:
            raise type(error)(error.message)

    async def complete(self, key: str, attempt: int, reply: ModelReply) -> None:
        """Make the reply of an attempt durable; use it only after this returns.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or the journal is broken.
        """
        call = self._open_call(key, attempt)
        job = self._end(call, CallStatus.COMPLETED, reply.usage, encode(reply), None, False)
        error = await job.done
        if error is not None:
            raise type(error)(error.message)

    async def fail(
        self, key: str, attempt: int, fault: Fault, *, maybe_paid: bool, usage: Usage = _NO_USAGE
    ) -> None:
        """Make the failure of an attempt durable.

        Args:
            key: the logical key.
            attempt: the attempt that failed.
            fault: what broke.
            maybe_paid: the provider may have done the work and billed it.
            usage: what it is known to have cost.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or the journal is broken.
        """
        call = self._open_call(key, attempt)
        job = self._end(call, CallStatus.FAILED, usage, b"", fault, maybe_paid)
        error = await job.done
        if error is not None:
            raise type(error)(error.message)

    def _end(
        self,
        call: _Call,
        state: CallStatus,
        usage: Usage,
        body: bytes,
        fault: Fault | None,
        maybe_paid: bool,
    ) -> Job:
        """Queue the outcome of an attempt."""
        _check_usage(usage)
        writer = self._writer
        writer.bind()
        row = self._last_row + 1
        now = self._clock()
        writer.pace += _NEWEST * (now - call.at - writer.pace)
        outcome = Outcome(
            call.row,
            call.role,
            state,
            now,
            maybe_paid,
            usage.calls,
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
            usage.usd,
            fault,
        )

        def settle() -> None:
            call.state = state
            writer.in_flight -= 1

        job = Job(row, _sealed(row, outcome), body, None, settle)
        writer.submit(job)
        self._last_row = call.end = row
        return job

    def _open_call(self, key: str, attempt: int) -> _Call:
        self._writer.check()
        call = self._calls.get(key)
        if call is None or call.attempt != attempt or call.end:
            raise JournalError(
                f"Attempt {attempt} of the call {key!r} is not open in {self._path}: an attempt is intended "
                "once and ends once."
            )
        return call

    def _same_request(self, key: str, call: _Call, digest: bytes) -> None:
        if call.digest != digest:
            raise JournalMismatchError(
                f"The request of the call {key!r} differs from the one in {self._path}: this would not be "
                "the same run. Resume with the configuration, data, prompts and version of tfgrpo that "
                "started it, or start a new run."
            )

    # --- records -----------------------------------------------------------------------------------------

    async def record(self, kind: str, key: str, value: msgspec.Struct) -> None:
        """Make a terminal record durable; the same value under the same key again is a no-op.

        Messages anywhere in the value are stored once, however many records share them.

        Args:
            kind: "rollout", "group", "step", …
            key: the logical key, unique in its kind.
            value: any msgspec struct; read it back with the same type.

        Raises:
            JournalMismatchError: the key holds another value.
            JournalError: the value has no JSON encoding, or the journal is broken.
        """
        writer = self._writer
        writer.check()
        writer.bind()
        digest = content_hash(fold(value))
        known = self._records.get(kind, _NONE).get(key)
        if known is not None:
            if known[1] != digest:
                raise JournalMismatchError(
                    f"The {kind} {key!r} is already in {self._path} with another value: a terminal record "
                    "never changes. Resume with the configuration, data and version of tfgrpo that started "
                    "the run."
                )
            job = Job(0, b"", b"")  # acknowledged only after the first one is durable
        else:
            row = self._last_row + 1
            head = _sealed(row, Record(kind, key, digest))
            body, blobs = self._contents.store(value)
            job = Job(row, head, body, blobs)
            self._last_row = row
            self._records.setdefault(kind, {})[key] = row, digest
        writer.submit(job)
        error = await job.done
        if error is not None:
            raise type(error)(error.message)

    def records(self, kind: str, type: type[S], prefix: str = "") -> dict[str, S]:  # noqa: A002
        """The durable records of one kind: see `JournalReader.records`."""
        durable = self._writer.acknowledged
        rows = self._records.get(kind, _NONE).items()
        return self.reader.values(
            {key: row for key, (row, _) in rows if row <= durable and key.startswith(prefix)}, type
        )

    def get(self, kind: str, key: str, type: type[S]) -> S | None:  # noqa: A002
        """One durable record, or None."""
        known = self._records.get(kind, _NONE).get(key)
        if known is None or known[0] > self._writer.acknowledged:
            return None
        return self.reader.value(known[0], type)

    # --- life --------------------------------------------------------------------------------------------

    @property
    def commits(self) -> int:
        """How many transactions were synced since opening."""
        return self._writer.commits

    def close(self) -> None:
        """Write what is queued, then release the file. A second call does nothing.

        Blocks for one commit. On a disk that is full it is tried once more; what was not acknowledged is
        lost then, and nothing that was.
        """
        with self._closing:  # from two threads, where a task was cancelled while one of them did it
            if not self._closed:
                self._closed = True
                self.reader.close()
                self._writer.close()
                self._lock.release()

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # Shielded: a cancelled run closes its journal like any other. A task that is cancelled by itself (asyncio's
        # own timeouts do that) knows no shield: then the loop is blocked for one commit.
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.close)
        finally:
            self.close()


def _sealed(row: int, head: Intent | Outcome | Record) -> bytes:
    """A head that SQLite can store: what has no encoding is refused here, where its caller alone gets the error."""
    try:
        return encode_head(row, head)
    except (TypeError, ValueError) as error:
        raise JournalError(
            f"A key or a fault cannot be journaled: {error}. Clean the text where it enters the run."
        ) from error


def _check_usage(usage: Usage) -> None:
    counts = (usage.calls, usage.input_tokens, usage.cached_tokens, usage.output_tokens)
    if min(counts) < 0 or max(counts) >= 2**40 or not math.isfinite(usage.usd):
        raise JournalError(f"A call cannot have cost {usage}: reject such a reply where it is received.")
