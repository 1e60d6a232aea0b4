"""The journal: the store of a run in one SQLite file."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import anyio
import anyio.lowlevel
import msgspec

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal.blobs import BlobStore
from tfgrpo.journal.codec import digest_of, encode
from tfgrpo.journal.disk import Disk
from tfgrpo.journal.effects import Effects, KnownEffect, check_usage
from tfgrpo.journal.lookup import PAGE, Lookup, closed_owner
from tfgrpo.journal.rowreader import RowReader
from tfgrpo.journal.rows import Intent, Outcome, Record, encode_head
from tfgrpo.journal.salvage import log_is_cut
from tfgrpo.journal.schema import EngineLock, connect, guarded, header_rows, write_new
from tfgrpo.journal.writer import Job, Writer
from tfgrpo.keys import Key, owner_text
from tfgrpo.protocols import Effect, Known, LeftOpen, Ticket
from tfgrpo.types import EffectStatus, Fault, Role, Usage

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_NO_USAGE = Usage()

#: The weight of the newest call in what calls take lately.
_NEWEST = 0.02

_DISK = Disk()

#: What is called on the event loop when launching has to stop (with a paragraph) and when it goes on (None).
OnTrouble = Callable[[str | None], None]


class Journal:
    """The store of a run in one SQLite file; the one engine that writes to it. See `tfgrpo.protocols.Store`.

    The promise: a completed effect is never lost and never paid twice; only effects in flight at a crash can be,
    and they are counted (`left_open`). To keep it, await `intend` before anything is sent and `complete` before
    its result is used.

    Only requests and results are stored: no header and no address, so no secret reaches the file.

    Use it from one event loop. Each writing method returns when its rows are on disk. Cancelling it does not
    undo the write: the rows are queued before the first wait and become durable all the same. Nothing is read from
    the file on the event loop. In memory is what is under way; of what is finished, eight bytes an entry.

    When the disk is full or refuses, new intents wait (see `ready`), and what has ended waits in memory until
    it is stored. A full disk may last as long as it takes; after any other I/O error the file is opened again
    and verified a few times. If that does not help, the journal is broken for good: all waiting callers get
    the error and all later ones are refused with the same message. Nothing acknowledged is ever lost.

    Make one with `await Journal.create(…)` or `await Journal.open(…)`, and close it with `aclose`, or use it as an
    async context manager.
    """

    def __init__(
        self,
        lock: EngineLock,
        reader: RowReader,
        clock: Callable[[], float],
        on_trouble: OnTrouble | None,
        disk: Disk,
    ) -> None:
        self._lock = lock
        self._reader = reader
        self._clock = clock
        self._path = reader.path
        self._closing = threading.Lock()
        self._closed = False
        self._effects = Effects()
        self._lookup = Lookup(reader, self._effects)
        self._opened = self._last_row = self._effects.load(reader)
        with guarded(self._path):
            if log_is_cut(Path(f"{self._path}-wal"), reader.log_frames(), self._last_row):
                raise reader.damaged("its write-ahead log is damaged in the middle")
        last_blob = reader.last_blob()
        self._blobs = BlobStore(last_blob)
        #: Attempts of this engine that have not ended, by the rows of their intents.
        self._open: dict[int, KnownEffect] = {}
        self._superseded = 0  # those that were cut off, and followed by another
        #: Records that are not durable yet, by kind and key; and what they close.
        self._on_the_way: dict[tuple[str, str], bytes] = {}
        self._closing_owners: set[str] = set()
        self._writer = Writer(
            connect(self._path, write=True, files=disk.files),
            self._path,
            disk,
            self._last_row,
            last_blob,
            on_trouble,
        )

    @classmethod
    async def create(
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

        Cancellation: the work in the thread is ended first, and the file let go.
        """
        text = encode(dict(header))

        def build() -> Journal:
            lock = EngineLock(path)
            try:
                write_new(path, *header_rows(text))
            except BaseException:
                lock.release()
                raise
            return cls._start(path, lock, clock, on_trouble, _disk)

        return await _in_thread(build)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        on_trouble: OnTrouble | None = None,
        _disk: Disk = _DISK,
    ) -> Journal:
        """Open the journal of an earlier run: less than a second for 200,000 effects, in a thread.

        The heads of all rows are read and their seals verified here; bodies, gigabytes in a long run, are
        verified when they are read.

        Args:
            path: the file.
            clock: see `create`.
            on_trouble: see `create`.

        Raises:
            JournalError: no file, another engine works on it, damaged, or of another version.

        Cancellation: the work in the thread is ended first, and the file let go.
        """

        def build() -> Journal:
            if not path.is_file():
                connect(path, write=False)  # says so, before a lock file appears
            return cls._start(path, EngineLock(path), clock, on_trouble, _disk)

        return await _in_thread(build)

    @classmethod
    def _start(
        cls,
        path: Path,
        lock: EngineLock,
        clock: Callable[[], float],
        on_trouble: OnTrouble | None,
        disk: Disk,
    ) -> Journal:
        try:
            reader = RowReader(path, disk.files)
            try:
                return cls(lock, reader, clock, on_trouble, disk)
            except BaseException:
                reader.close()
                raise
        except BaseException:
            lock.release()
            raise

    # --- state -------------------------------------------------------------------------------------------

    @property
    def header(self) -> Mapping[str, Any]:
        """The JSON values with which the journal was made."""
        return self._reader.header

    @property
    def commits(self) -> int:
        """How many transactions were synced since opening."""
        return self._writer.commits

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

    def usage(self) -> Mapping[Role, Usage]:
        """The cost of every finished attempt there is, by role, failed ones included."""
        sums = self._effects.sums
        return {role: sums[role].usage for role in sorted(sums)}

    def faults(self) -> Mapping[str, int]:
        """How many attempts failed, by the name of the error."""
        return self._effects.faults

    def open_intents(self) -> int:
        """How many attempts are under way, or were in flight when an engine died: these may have been paid."""
        return len(self._open) + self._superseded + len(self._effects.left_open)

    def seconds_a_call(self) -> Mapping[Role, float]:
        """How long the completed model calls of earlier engines took in the mean, by role."""
        return self._effects.seconds

    # --- effects -----------------------------------------------------------------------------------------

    async def find(self, key: Key, result: type[msgspec.Struct]) -> Known | None:
        """The newest attempt at an effect, or None if it was never intended, or let go with its closed owner.

        Args:
            key: of the effect.
            result: the type of its result.

        Raises:
            JournalError: the file cannot be read.
        """
        text = key.text
        owner = owner_text(text)
        live = self._effects.owners.get(owner)
        effect = None if live is None else live.get(text)
        if effect is None:
            # Only what is its own owner is found in the file; the others are let go with theirs.
            rows = self._effects.outcome_rows(text) if owner == text else []
            return await self._lookup.read(self._lookup.known_by_rows, text, rows, result) if rows else None
        if effect.status is EffectStatus.OPEN:
            return Known(effect.attempt, EffectStatus.OPEN, effect.digest)
        return await self._lookup.read(self._lookup.known, effect.attempt, effect.digest, effect.end, result)

    async def intend(self, effects: Sequence[Effect]) -> list[Ticket]:
        """Make the intents of effects durable, all or none; send only after this returns.

        Waits while the disk is full. Cancelled before it starts or in that wait, it writes nothing. Cancelled
        later, the intents stay open, and count as perhaps paid unless `fail` says otherwise.

        Raises:
            JournalMismatchError: a key was intended before with another digest.
            JournalError: an effect is completed already, a key is there twice, the owner has its terminal record, or
                the journal is broken.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        writer = self._writer
        if writer.stalled is not None:
            await writer.ready()
        writer.check()
        writer.bind()
        finished = None
        for effect in effects:
            if not self._unfinished(effect.key.text):
                finished = await self._finished(effects)
                break
        row, now, owners = self._last_row, self._clock(), self._effects.owners
        tickets: list[Ticket] = []
        made: list[KnownEffect] = []
        rows: list[tuple[int, bytes, bytes]] = []
        for effect in effects:
            key = effect.key.text
            live = owners.get(owner_text(key))
            known = None if live is None else live.get(key)
            if known is None and finished is not None:
                known = finished.get(key)
            attempt = 0 if known is None else self._next_attempt(effect, known)
            row += 1
            head = _sealed(row, Intent(key, attempt, effect.role, effect.digest, now, effect.kind))
            rows.append((row, head, self._blobs.store_request(effect.request, effect.digest)))
            made.append(KnownEffect(key, row, attempt, effect.kind, effect.role, effect.digest, now))
            tickets.append(Ticket(effect.key, attempt, row))
        if len(made) > 1 and len({effect.key for effect in made}) != len(made):
            raise JournalError("One effect was to be intended twice at once: each has a key of its own.")
        if not made:
            return tickets
        job = Job(rows, self._blobs.take())
        writer.submit(job)
        self._last_row = row
        writer.in_flight += len(made)
        for new in made:
            live = owners.setdefault(owner_text(new.key), {})
            old = live.get(new.key)
            if old is not None and self._open.pop(old.row, None) is not None:
                writer.in_flight -= 1  # an attempt that was cut off has no outcome to come
                self._superseded += 1
            live[new.key] = self._open[new.row] = new
        error = await job.done
        if error is not None:
            raise type(error)(error.message)
        return tickets

    def _next_attempt(self, effect: Effect, known: KnownEffect) -> int:
        if known.digest != effect.digest:
            raise JournalMismatchError(
                f"The request of the effect '{effect.key}' differs from the one in {self._path}: this would not be "
                "the same run. Resume with the configuration, data, prompts and version of tfgrpo that "
                "started it, or start a new run."
            )
        if known.end and known.status is not EffectStatus.FAILED:
            raise JournalError(
                f"The effect '{effect.key}' has its outcome in {self._path}: take it from `find`."
            )
        return known.attempt + 1

    def _unfinished(self, key: str) -> bool:
        """Tell if nothing about a key was let go of, which is the usual case."""
        owner = owner_text(key)
        if owner in self._closing_owners:
            return False
        live = self._effects.owners.get(owner)
        if live is not None and (owner != key or key in live):
            return True
        return not self._effects.finished_rows(owner)

    async def _finished(self, effects: Sequence[Effect]) -> dict[str, KnownEffect] | None:
        """Those of some effects that were let go of, read again; None for the usual case that there is none.

        Raises:
            JournalError: an owner has its terminal record.
        """
        found: dict[str, tuple[list[int], KnownEffect | None]] = {}
        while True:
            stale: dict[str, list[int]] = {}
            for effect in effects:
                owner = owner_text(effect.key.text)
                if owner in self._closing_owners:
                    raise closed_owner(owner, self._path)
                if self._unfinished(effect.key.text):
                    continue
                rows = self._effects.finished_rows(owner)
                if owner not in found or found[owner][0] != rows:
                    stale[owner] = rows
            if not stale:
                return {owner: known for owner, (_, known) in found.items() if known} if found else None
            for owner, rows in stale.items():
                found[owner] = rows, await self._lookup.read(self._lookup.finished_effect, owner, rows)
            self._writer.check()

    async def complete(self, ticket: Ticket, result: msgspec.Struct, usage: Usage) -> None:
        """Make the result of an attempt durable; use it only after this returns.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or the journal is broken.
        """
        job = self._end(ticket, EffectStatus.COMPLETED, usage, encode(result), None, False)
        error = await job.done
        if error is not None:
            raise type(error)(error.message)

    async def fail(self, ticket: Ticket, fault: Fault, *, maybe_paid: bool, usage: Usage = _NO_USAGE) -> None:
        """Make the failure of an attempt durable.

        Args:
            ticket: the attempt.
            fault: what broke.
            maybe_paid: the other side may have done the work and may bill it.
            usage: what it is known to have cost.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or the journal is broken.
        """
        job = self._end(ticket, EffectStatus.FAILED, usage, b"", fault, maybe_paid)
        error = await job.done
        if error is not None:
            raise type(error)(error.message)

    def _end(
        self,
        ticket: Ticket,
        status: EffectStatus,
        usage: Usage,
        body: bytes,
        fault: Fault | None,
        maybe_paid: bool,
    ) -> Job:
        """Queue the outcome of an attempt."""
        writer = self._writer
        writer.check()
        effect = self._open.get(ticket.row)
        if effect is None or effect.key != ticket.key.text:
            raise JournalError(
                f"Attempt {ticket.attempt} at the effect '{ticket.key}' is not open in {self._path}: an attempt is "
                "intended once and ends once."
            )
        check_usage(usage)
        writer.bind()
        row = self._last_row + 1
        now = self._clock()
        writer.pace += _NEWEST * (now - effect.at - writer.pace)
        head = Outcome(
            effect.row,
            effect.role,
            status,
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
            writer.in_flight -= 1
            self._effects.ended(effect, head)

        job = Job([(row, _sealed(row, head), body)], None, settle)
        writer.submit(job)
        self._last_row = effect.end = row
        del self._open[effect.row]
        return job

    def done(self, owner: Key) -> Sequence[Key]:
        """The completed effects of an owner that an earlier engine left without its terminal record."""
        return [
            Key.parse(effect.key)
            for effect in self._effects.owners.get(owner.text, {}).values()
            if effect.status is EffectStatus.COMPLETED and effect.end <= self._opened
        ]

    async def left_open(self) -> AsyncIterator[LeftOpen]:
        """The attempts that earlier engines had in flight when they ended: they may have been paid.

        Raises:
            JournalError: a request cannot be read.
        """
        for start in range(0, len(self._effects.left_open), PAGE):
            for opened in await self._lookup.read(
                self._lookup.left_open, self._effects.left_open[start : start + PAGE]
            ):
                yield opened

    # --- records -----------------------------------------------------------------------------------------

    async def record(self, kind: str, key: Key, value: msgspec.Struct, *, ends: Key | None = None) -> None:
        """Make a terminal record durable; the same value under the same key again is a no-op.

        Messages anywhere in the value are stored once, however many records share them.

        Args:
            kind: "rollout", "group", "step", …
            key: unique in its kind.
            value: any msgspec struct; read it back with the same type.
            ends: the owner whose effects nobody will ask for again; by default `key`.

        Raises:
            JournalMismatchError: the key holds another value.
            JournalError: the value has no JSON encoding, or the journal is broken.
        """
        writer = self._writer
        writer.check()
        writer.bind()
        digest = digest_of(value)
        text = key.text
        known = self._on_the_way.get((kind, text))
        looked: list[int] = []
        while known is None and (rows := self._effects.record_rows(kind, text)) != looked:
            head = await self._lookup.read(self._lookup.record_head, kind, text, rows)
            looked, known = rows, self._on_the_way.get((kind, text)) if head is None else head[1].digest
            writer.check()
        if known is None:
            job = self._new_record(kind, text, text if ends is None else ends.text, digest, value)
        elif known == digest:
            job = Job([])  # acknowledged only after the first one is durable
        else:
            raise JournalMismatchError(
                f"The {kind} '{key}' is already in {self._path} with another value: a terminal record "
                "never changes. Resume with the configuration, data and version of tfgrpo that started "
                "the run."
            )
        writer.submit(job)
        error = await job.done
        if error is not None:
            raise type(error)(error.message)

    def _new_record(self, kind: str, key: str, closes: str, digest: bytes, value: msgspec.Struct) -> Job:
        row = self._last_row + 1
        head = _sealed(row, Record(kind, key, digest, "" if closes == key else closes))
        body = self._blobs.store(value)
        self._last_row = row
        self._on_the_way[kind, key] = digest
        self._closing_owners.add(closes)

        def settle() -> None:
            del self._on_the_way[kind, key]
            self._closing_owners.discard(closes)
            self._effects.recorded(kind, key, closes, row)

        return Job([(row, head, body)], self._blobs.take(), settle)

    async def get(self, kind: str, key: Key, type: type[S]) -> S | None:  # noqa: A002
        """One durable record, or None."""
        rows = self._effects.record_rows(kind, key.text)
        return await self._lookup.read(self._lookup.record, kind, key.text, rows, type) if rows else None

    async def records(self, kind: str, type: type[S], under: str = "") -> AsyncIterator[tuple[Key, S]]:  # noqa: A002
        """The durable records of one kind in the order of their keys, in pages.

        Args:
            kind: as given to `record`.
            type: of the values.
            under: the beginning of the keys' text.
        """
        order = await self._lookup.read(self._lookup.key_order, kind, under)
        try:
            after = ""
            while page := await self._lookup.read(self._lookup.record_page, order, after, type):
                for key, value in page:
                    yield Key.parse(key), value
                after = page[-1][0]
        finally:
            self._lookup.later(order.close)

    # --- life --------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Write what is queued, then release the file. A second call does nothing.

        On a disk that is full it is tried once more; what was not acknowledged is lost then, and nothing that was.
        Not cancelled by anyio's scopes; a task that is cancelled by itself (asyncio's own timeouts do that) knows
        no shield: then the loop is blocked for one commit.
        """
        if self._closed:
            return
        self._writer.end()
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.get_running_loop().run_in_executor(self._writer.executor, self._release)
        except BaseException:
            self._writer.executor.submit(self._release).result()
            raise
        finally:
            self._writer.executor.shutdown()

    def _release(self) -> None:
        """Let go of everything, in the writer's thread."""
        with self._closing:
            if self._closed:
                return
            self._writer.finish()
            self._closed = True
            self._lookup.close()
            self._lock.release()

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def _in_thread(build: Callable[[], Journal]) -> Journal:
    """Open a journal in a thread; who is cancelled meanwhile leaves none open."""
    made: list[Journal] = []
    executor = ThreadPoolExecutor(1, thread_name_prefix="tfgrpo-journal-opening")

    def work() -> None:
        made.append(build())

    def undo() -> None:
        for journal in made:
            journal._writer.end()
            journal._release()

    try:
        with anyio.CancelScope(shield=True):
            await asyncio.get_running_loop().run_in_executor(executor, work)
    except BaseException:
        executor.submit(undo)
        raise
    finally:
        executor.shutdown(wait=False)
    return made[0]


def _sealed(row: int, head: Intent | Outcome | Record) -> bytes:
    """A head that SQLite can store: what has no encoding is refused here, where its caller alone gets the error."""
    try:
        return encode_head(row, head)
    except (TypeError, ValueError) as error:
        raise JournalError(
            f"A key or a fault cannot be journaled: {error}. Clean the text where it enters the run."
        ) from error
