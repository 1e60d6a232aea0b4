"""The reading thread of a journal: looks up in the file what memory has let go of, never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.journal.effects import Effects, KnownEffect
from tfgrpo.journal.rowreader import KeyOrder, RowReader
from tfgrpo.journal.rows import Intent, Outcome, Record
from tfgrpo.journal.schema import closed_error
from tfgrpo.keys import Key
from tfgrpo.protocols import Known, LeftOpen
from tfgrpo.types import EffectStatus, Usage

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Records that are read at a time.
PAGE = 256


class Lookup:
    """Reads one journal in a thread of its own: `await lookup.read(lookup.record, …)`.

    All methods but `read`, `later` and `close` run in that thread.

    Args:
        reader: of the file.
        effects: where things stand.
    """

    def __init__(self, reader: RowReader, effects: Effects) -> None:
        self._reader = reader
        self._effects = effects
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tfgrpo-journal-reader")
        self.closed = False

    async def read(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Read from the file in the one thread that does.

        Cancelling it leaves the thread to end by itself.

        Raises:
            JournalError: the file cannot be read, or is closed.
        """
        if self.closed:
            raise closed_error(self._reader.path)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def known(self, attempt: int, digest: bytes, row: int, result: type[msgspec.Struct]) -> Known:
        """The newest attempt, with its result, out of the row of its outcome."""
        head: Outcome = self._reader.head(row)
        usage = Usage(head.calls, head.input_tokens, head.cached_tokens, head.output_tokens, head.usd)
        completed = head.status is EffectStatus.COMPLETED
        value = self._reader.result(row, result) if completed else None
        return Known(attempt, head.status, digest, value, usage, head.fault)

    def known_by_rows(self, key: str, rows: list[int], result: type[msgspec.Struct]) -> Known | None:
        """The same, where only rows are known that may hold the outcome."""
        effect = self.finished_outcome(key, rows)
        return None if effect is None else self.known(effect.attempt, effect.digest, effect.end, result)

    def finished_effect(self, owner: str, rows: list[int]) -> KnownEffect | None:
        """The effect that is its own owner, if there is one; refuses an owner that is closed."""
        for row in rows:
            head = self._reader.head(row)
            if type(head) is Record and head.closes == owner:
                raise closed_owner(owner, self._reader.path)
        return self.finished_outcome(owner, rows)

    def finished_outcome(self, key: str, rows: list[int]) -> KnownEffect | None:
        """The newest attempt among rows that may be outcomes of an effect."""
        for row in reversed(rows):
            head = self._reader.head(row)
            if type(head) is Outcome:
                intent: Intent = self._reader.head(head.call)
                if intent.key == key:
                    return KnownEffect(
                        key,
                        head.call,
                        intent.attempt,
                        intent.kind,
                        intent.role,
                        intent.digest,
                        intent.at,
                        head.status,
                        row,
                    )
        return None

    def left_open(self, rows: Sequence[int]) -> list[LeftOpen]:
        """Attempts that have no outcome, with their requests, out of the rows of their intents."""
        found: list[LeftOpen] = []
        for row in rows:
            head: Intent = self._reader.head(row)
            request = self._reader.request(row, head.kind)
            found.append(LeftOpen(Key.parse(head.key), head.kind, head.role, request))
        return found

    def record_head(self, kind: str, key: str, rows: list[int]) -> tuple[int, Record] | None:
        """The record of a kind and key, and its row, among rows that may hold it."""
        for row in rows:
            head = self._reader.head(row)
            if type(head) is Record and (head.kind, head.key) == (kind, key):
                return row, head
        return None

    def record(self, kind: str, key: str, rows: list[int], type: type[S]) -> S | None:  # noqa: A002
        """The value of a record, or None."""
        found = self.record_head(kind, key, rows)
        return None if found is None else self._reader.value(found[0], type)

    def key_order(self, kind: str, under: str) -> KeyOrder:
        """The keys of a kind that begin so, ordered in a file of their own."""

        def pairs() -> Iterator[tuple[str, int]]:
            for row in self._effects.rows_of_kind(kind):
                head = self._reader.head(row)
                if type(head) is Record and head.kind == kind and head.key.startswith(under):
                    yield head.key, row

        return KeyOrder(pairs())

    def record_page(self, order: KeyOrder, after: str, type: type[S]) -> list[tuple[str, S]]:  # noqa: A002
        """The next records in the order of their keys."""
        page = order.page(after, PAGE)
        values = self._reader.values([row for _, row in page], type)
        return [(key, value) for (key, _), value in zip(page, values, strict=True)]

    def later(self, work: Callable[[], object]) -> None:
        """Have the thread do something at its leisure; nothing where it has ended."""
        if not self.closed:
            self._thread.submit(work)

    def close(self) -> None:
        """Close the file and end the thread, from any other one."""
        self.closed = True
        self._thread.submit(self._reader.close).result()
        self._thread.shutdown()


def closed_owner(owner: str, path: Path) -> JournalError:
    """The error for an effect whose owner has its terminal record."""
    return JournalError(
        f"{owner!r} has its terminal record in {path}: nothing is done for it any more. Ask for the record before its "
        "effects."
    )
