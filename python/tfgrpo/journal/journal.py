"""The writing side: intents before requests are sent, outcomes before they are used, terminal records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal.codec import content_hash, encode, fold, request_digest
from tfgrpo.journal.reader import JournalReader
from tfgrpo.journal.schema import CallStatus, EngineLock, connect, write_new
from tfgrpo.journal.writer import Job, Row, Table, Writer
from tfgrpo.types import Fault, ModelReply, ModelRequest, Role, Struct, Usage

S = TypeVar("S", bound=msgspec.Struct)

_NO_USAGE = Usage()


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


@dataclass(slots=True, eq=False)
class _Call:
    """What is kept in memory of the newest attempt of a call; `ending` while its outcome is on the way."""

    id: int
    attempt: int
    digest: bytes
    state: CallStatus = CallStatus.OPEN
    ending: bool = False


class Journal:
    """The one writing side of a run's journal.

    The promise: a completed call is never lost and never paid twice; only calls in flight at a crash can be,
    and they are counted (`JournalReader.open_intents`). To keep it, await `intend` before a request is sent
    and `complete` before its reply is used.

    Keys are logical ("practice/000/002/t017/group/0"); attempts of a key count upwards and carry the same
    request. Only requests and replies are stored: no header and no address, so no secret reaches the file.

    Use it from one event loop. Each writing method returns when its rows are on disk. Cancelling it does not
    undo the write: the rows are queued before the first wait and become durable all the same. Any failure to
    write breaks the journal: all waiting callers get the error and all later ones are refused with the same
    message, while everything acknowledged is kept.

    Create one with `create` or `open`, and close it, or use it as an async context manager.

    Attributes:
        header: what the run was created with.
        reader: the reading side of the same file, for the thread of the event loop.
    """

    def __init__(
        self, lock: EngineLock, reader: JournalReader, writer: Writer, clock: Callable[[], float]
    ) -> None:
        self.reader = reader
        self.header: dict[str, Any] = reader.header
        self._lock = lock
        self._writer = writer
        self._clock = clock
        self._path = reader.path
        self._calls: dict[str, _Call] = {}
        self._last_id = 0
        for row in reader.call_index():
            self._last_id = row.id
            self._calls[row.key] = _Call(row.id, row.attempt, row.request, row.state or CallStatus.OPEN)
        self._records = reader.record_index()

    @classmethod
    def create(
        cls, path: Path, header: Mapping[str, Any], *, clock: Callable[[], float] = time.time
    ) -> Journal:
        """Start the journal of a new run and open it.

        Args:
            path: the file; its directory exists.
            header: JSON values that describe the run (configuration hash, seed, …).
            clock: gives the seconds since the epoch that intents and outcomes are stamped with.

        Raises:
            JournalError: the file exists, is being worked on, or cannot be written.
        """
        text = encode(dict(header)).decode()
        lock = EngineLock(path)
        try:
            write_new(path, text)
            return cls._start(path, lock, clock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Journal:
        """Open the journal of an earlier run. Blocks about a second for 200,000 calls.

        The file is not checked page by page: that would read all of it, gigabytes in a long run. The index of
        the calls is read whole here, and every body carries a checksum that is verified when it is read.

        Raises:
            JournalError: no file, another engine works on it, damaged, or of another version.
        """
        if not path.is_file():
            connect(path, write=False)  # says so, before a lock file appears
        lock = EngineLock(path)
        try:
            return cls._start(path, lock, clock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _start(cls, path: Path, lock: EngineLock, clock: Callable[[], float]) -> Journal:
        reader = JournalReader(path)
        try:
            writer = Writer(connect(path, write=True), path)
            try:
                return cls(lock, reader, writer, clock)
            except BaseException:
                writer.close()
                raise
        except BaseException:
            reader.close()
            raise

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
            self._same_request(key, call, request_digest(request))
        return CallState(
            call.attempt,
            call.state,
            call.digest.hex(),
            self.reader.reply_of(call.id) if call.state is CallStatus.COMPLETED else None,
            self.reader.fault_of(call.id) if call.state is CallStatus.FAILED else None,
        )

    async def intend(self, key: str, attempt: int, role: Role, request: ModelRequest) -> None:
        """Make the intent of one attempt durable; send the request only after this returns.

        Cancelled before it starts, it writes nothing. Cancelled while it waits, the intent stays open, and
        counts as possibly paid unless `fail` says otherwise.

        Raises:
            JournalMismatchError: an earlier attempt of the key carried another request.
            JournalError: the call is completed already, `attempt` is not new, or the journal is broken.
            JournalFullError: the disk is full.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._writer.check()
        folded = fold(request)
        digest = content_hash(folded.body)
        known = self._calls.get(key)
        if known is not None:
            self._same_request(key, known, digest.hex())
            if known.state is CallStatus.COMPLETED or known.ending:
                raise JournalError(f"The call {key!r} has its outcome in {self._path}: take it from `last`.")
        if attempt < 0 or (known is not None and attempt <= known.attempt):
            newest = "none" if known is None else known.attempt
            raise JournalError(
                f"Attempt {attempt} of the call {key!r} is not new (newest in {self._path}: {newest}). "
                "Attempts count upwards from 0."
            )
        blobs = [(Table.BLOBS, item) for item in (*folded.messages.items(), (digest, folded.body))]
        call = _Call(self._last_id + 1, attempt, digest)
        row: Row = (call.id, _text(key), attempt, role.value, digest, self._clock())
        job = Job([*blobs, (Table.CALLS, row)])
        self._writer.submit(job)
        self._last_id = call.id
        self._calls[key] = call
        await self._writer.wait(job)

    async def complete(self, key: str, attempt: int, reply: ModelReply) -> None:
        """Make the reply of an attempt durable; use it only after this returns.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or the journal is broken.
            JournalFullError: the disk is full.
        """
        call = self._open_call(key, attempt)
        body = (Table.REPLIES, (call.id, encode(reply)))
        await self._end(call, CallStatus.COMPLETED, reply.usage, [body])

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
            JournalFullError: the disk is full.
        """
        call = self._open_call(key, attempt)
        await self._end(
            call, CallStatus.FAILED, usage, [], maybe_paid=maybe_paid, fault=encode(fault).decode()
        )

    async def _end(
        self,
        call: _Call,
        state: CallStatus,
        usage: Usage,
        rows: list[tuple[Table, Row]],
        *,
        maybe_paid: bool = False,
        fault: str | None = None,
    ) -> None:
        _check_usage(usage)
        costs = (usage.calls, usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.usd)
        outcome: Row = (call.id, state.value, self._clock(), maybe_paid, *costs, fault)

        def settle() -> None:
            call.state, call.ending = state, False

        job = Job([(Table.OUTCOMES, outcome), *rows], settle)
        self._writer.submit(job)
        call.ending = True
        await self._writer.wait(job)

    def _open_call(self, key: str, attempt: int) -> _Call:
        self._writer.check()
        call = self._calls.get(key)
        if call is None or call.attempt != attempt or call.state is not CallStatus.OPEN or call.ending:
            raise JournalError(
                f"Attempt {attempt} of the call {key!r} is not open in {self._path}: an attempt is intended "
                "once and ends once."
            )
        return call

    def _same_request(self, key: str, call: _Call, digest: str) -> None:
        if call.digest.hex() != digest:
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
            JournalFullError: the disk is full.
        """
        self._writer.check()
        folded = fold(value)
        digest = content_hash(folded.body)
        known = self._records.get((kind, key))
        if known is not None and known != digest:
            raise JournalMismatchError(
                f"The {kind} {key!r} is already in {self._path} with another value: a terminal record never "
                "changes. Resume with the configuration, data and version of tfgrpo that started the run."
            )
        rows: list[tuple[Table, Row]] = []
        if known is None:
            rows = [(Table.BLOBS, item) for item in folded.messages.items()]
            rows.append((Table.RECORDS, (_text(kind), _text(key), digest, folded.body)))
        # A repetition queues an empty job: it is acknowledged only after the first one is durable.
        job = Job(rows)
        self._writer.submit(job)
        self._records[kind, key] = digest
        await self._writer.wait(job)

    def records(self, kind: str, type: type[S], prefix: str = "") -> dict[str, S]:  # noqa: A002
        """The durable records of one kind: see `JournalReader.records`."""
        return self.reader.records(kind, type, prefix)

    def get(self, kind: str, key: str, type: type[S]) -> S | None:  # noqa: A002
        """One durable record, or None."""
        return self.reader.get(kind, key, type)

    # --- life --------------------------------------------------------------------------------------------

    @property
    def commits(self) -> int:
        """How many transactions were synced since opening."""
        return self._writer.commits

    def close(self) -> None:
        """Write what is queued, then release the file. Blocks for one commit; a second call does nothing."""
        self.reader.close()
        self._writer.close()
        self._lock.release()

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # Shielded: a cancelled run closes its journal like any other.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)


def _text(value: str) -> str:
    """A key that SQLite can store: checked here, where the error reaches its caller alone."""
    encode(value)
    return value


def _check_usage(usage: Usage) -> None:
    counts = (usage.calls, usage.input_tokens, usage.cached_tokens, usage.output_tokens)
    if not all(0 <= count < 2**40 for count in counts) or not math.isfinite(usage.usd):
        raise JournalError(f"A call cannot have cost {usage}: reject such a reply where it is received.")
