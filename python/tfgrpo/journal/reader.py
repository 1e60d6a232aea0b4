"""The reading side: works on a live journal, on a finished one, and on one that a crash left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.journal.codec import unfold
from tfgrpo.journal.rows import CallStatus, Head, Intent, Outcome, Record, Table, Unpacker, decode_head
from tfgrpo.journal.schema import SYSTEM, Files, close_reader, connect, guarded, journal_error
from tfgrpo.types import Fault, Message, ModelReply, ModelRequest, Role, Struct, Usage

S = TypeVar("S", bound=msgspec.Struct)

#: Rows of one read transaction: a long one would keep a live journal's log from being folded in.
_PAGE = 10_000


_BODY = {
    Table.BODIES: "SELECT body FROM bodies WHERE id = ?",
    Table.BLOBS: "SELECT body FROM blobs WHERE id = ?",
}


class CallSummary(Struct, frozen=True):
    """One attempt of a call, without its texts.

    `finished_at` and `fault` are None where there is none. `maybe_paid` is True for a failed attempt whose
    provider may have done the work, and for every open one: nobody knows.
    """

    key: str
    attempt: int
    role: Role
    state: CallStatus
    usage: Usage
    fault: Fault | None
    intended_at: float
    finished_at: float | None
    maybe_paid: bool


class Totals:
    """Sums over the heads of a journal."""

    def __init__(self) -> None:
        self.last = 0
        self.intents = 0
        self.outcomes = 0
        self.usage: dict[Role, list[Any]] = {}
        self.faults: dict[str, int] = {}

    def add(self, row: int, head: Head) -> None:
        """Count one head; they come in the order of their rows."""
        self.last = row
        if isinstance(head, Intent):
            self.intents += 1
        elif isinstance(head, Outcome):
            self.outcomes += 1
            sums = self.usage.get(head.role)
            if sums is None:
                sums = self.usage[head.role] = [0, 0, 0, 0, 0.0]
            sums[0] += head.calls
            sums[1] += head.input_tokens
            sums[2] += head.cached_tokens
            sums[3] += head.output_tokens
            sums[4] += head.usd
            if head.fault is not None:
                self.faults[head.fault.error] = self.faults.get(head.fault.error, 0) + 1


class _Directory:
    """Where what stands: the rows of attempts and records by their keys. Made when first asked for."""

    def __init__(self) -> None:
        self.last = 0
        self.intents: dict[tuple[str, int], int] = {}
        self.replies: dict[int, int] = {}
        self.records: dict[str, dict[str, int]] = {}

    def add(self, row: int, head: Head) -> None:
        self.last = row
        if isinstance(head, Intent):
            self.intents[head.key, head.attempt] = row
        elif isinstance(head, Record):
            self.records.setdefault(head.kind, {})[head.key] = row
        elif isinstance(head, Outcome) and head.status is CallStatus.COMPLETED:
            self.replies[head.call] = row


class JournalReader:
    """Reads a journal; never changes it. One thread at a time; readers do not delay the writer.

    All methods read what is durable at the moment of the call, and are synchronous. The first sum or look-up
    reads the small rows of the whole run, a second or less for 200,000 calls; later ones only what is new.

    Args:
        path: the journal file.

    Raises:
        JournalError: from every method: the file is missing, damaged, closed, or of another version.
    """

    def __init__(self, path: Path, *, _files: Files = SYSTEM) -> None:
        self.path = path
        self._unpacker = Unpacker()
        self._connection = connect(path, write=False, files=_files)
        self.totals = Totals()
        self._directory = _Directory()
        try:
            with guarded(path):
                self.header: dict[str, Any] = msgspec.json.decode(self._body(1), type=dict[str, Any])
        except BaseException:
            self._connection.close()
            raise

    # --- records -----------------------------------------------------------------------------------------

    def records(self, kind: str, type: type[S], prefix: str = "") -> dict[str, S]:  # noqa: A002
        """The records of one kind whose key starts with `prefix`, by key, in the order of the keys.

        Messages that records share are decoded once and shared in memory as well.
        """
        rows = self._look_up().records.get(kind, {})
        return self.values({key: row for key, row in rows.items() if key.startswith(prefix)}, type)

    def get(self, kind: str, key: str, type: type[S]) -> S | None:  # noqa: A002
        """One record, or None."""
        row = self._look_up().records.get(kind, {}).get(key)
        return None if row is None else self.value(row, type)

    # --- calls -------------------------------------------------------------------------------------------

    def calls(self) -> Iterator[CallSummary]:
        """Every attempt of every call, in the order of the intents."""
        intents: list[tuple[int, Intent]] = []
        outcomes: dict[int, Outcome] = {}
        for row, head in self.heads(0):
            if isinstance(head, Intent):
                intents.append((row, head))
            elif isinstance(head, Outcome):
                outcomes[head.call] = head
        for row, intent in intents:
            yield _summary(intent, outcomes.pop(row, None))

    def usage_by_role(self) -> dict[Role, Usage]:
        """What the finished attempts cost, failed ones included, for each role that made a call."""
        usage = self._sums().usage
        return {role: Usage(*usage[role]) for role in sorted(usage)}

    def faults_by_kind(self) -> dict[str, int]:
        """How many attempts failed, by the name of the error (`Fault.error`)."""
        return dict(sorted(self._sums().faults.items()))

    def open_intents(self) -> int:
        """How many attempts have an intent and no outcome.

        On a live journal these are the calls in flight; on a journal whose engine has ended they are the
        only calls that can have been paid for without an answer, those of earlier crashes included.
        """
        sums = self._sums()
        return sums.intents - sums.outcomes

    def request(self, key: str, attempt: int) -> ModelRequest:
        """The request of one attempt.

        Raises:
            JournalError: there is no such attempt (or the file is damaged).
        """
        return self.value(self._find(key, attempt), ModelRequest)

    def reply(self, key: str, attempt: int) -> ModelReply | None:
        """The reply of one attempt, or None where it failed or is open.

        Raises:
            JournalError: there is no such attempt (or the file is damaged).
        """
        row = self._look_up().replies.get(self._find(key, attempt))
        return None if row is None else self.reply_of(row)

    # --- for the writing side, which knows the rows ------------------------------------------------------

    def heads(self, after: int) -> Iterator[tuple[int, Any]]:
        """Every head behind a row, with its row: they have no gap, and nothing may be missing at the end.

        Raises:
            JournalError: a row is damaged or missing.
        """
        with guarded(self.path):
            while True:
                page = self._query(
                    "SELECT id, head FROM log WHERE id > ? ORDER BY id LIMIT ?", (after, _PAGE)
                )
                for row, value in page:
                    after += 1
                    if row != after:
                        raise ValueError(f"row {after} of log is missing")
                    yield row, decode_head(row, value)
                if len(page) < _PAGE:
                    break
            # The last page of a table can be lost without a gap: each row has a body, so both ends must meet.
            # Read after the rows: a live journal may have grown since, but never by bodies alone.
            ends = self._query("SELECT (SELECT max(id) FROM log), (SELECT max(id) FROM bodies)")[0]
            if ends[0] != ends[1] or (ends[0] or 0) < after:
                raise ValueError(f"log ends at row {ends[0]} and bodies at row {ends[1]}")

    def damaged(self, what: str) -> JournalError:
        """The error for something that does not fit together."""
        return journal_error(ValueError(what), self.path)

    def last_blob(self) -> int:
        """The last row of `blobs`, 0 if there is none."""
        with guarded(self.path):
            return self._query("SELECT max(id) FROM blobs")[0][0] or 0

    def value(self, row: int, type: type[S]) -> S:  # noqa: A002
        """The folded value in the body of a row."""
        with guarded(self.path):
            return unfold(self._body(row), type, self._message)

    def values(self, rows: dict[str, int], type: type[S]) -> dict[str, S]:  # noqa: A002
        """The same for many, in the order of the keys."""
        seen: dict[str, Message] = {}

        def load(number: str) -> Message:
            if number not in seen:
                seen[number] = self._message(number)
            return seen[number]

        with guarded(self.path):
            self._connection.pragma("application_id")  # a closed journal has no records, and has to say so
            return {key: unfold(self._body(rows[key]), type, load) for key in sorted(rows)}

    def reply_of(self, row: int) -> ModelReply:
        """The reply in the body of an outcome."""
        with guarded(self.path):
            return msgspec.json.decode(self._body(row), type=ModelReply)

    def fault_of(self, row: int) -> Fault | None:
        """The fault in the head of an outcome."""
        with guarded(self.path):
            rows = self._query("SELECT head FROM log WHERE id = ?", (row,))
            head = decode_head(row, rows[0][0] if rows else b"")
            return head.fault if isinstance(head, Outcome) else None

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        close_reader(self._connection, self.path)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- parts -------------------------------------------------------------------------------------------

    def _query(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, bindings).fetchall()

    def _sums(self) -> Totals:
        totals = self.totals
        for row, head in self.heads(totals.last):
            totals.add(row, head)
        return totals

    def _look_up(self) -> _Directory:
        directory = self._directory
        for row, head in self.heads(directory.last):
            directory.add(row, head)
        return directory

    def _find(self, key: str, attempt: int) -> int:
        row = self._look_up().intents.get((key, attempt))
        if row is None:
            raise JournalError(
                f"The journal {self.path} has no attempt {attempt} of the call {key!r}. All keys are in "
                "JournalReader.calls()."
            )
        return row

    def _body(self, row: int) -> bytes:
        return self._stored(Table.BODIES, row)

    def _message(self, number: str) -> Message:
        return msgspec.json.decode(self._stored(Table.BLOBS, int(number)), type=Message)

    def _stored(self, table: Table, row: int) -> bytes:
        rows = self._query(_BODY[table], (row,))
        if not rows:
            raise ValueError(f"row {row} of {table.name.lower()} is missing")
        return self._unpacker.unpack(table, row, rows[0][0])


def _summary(intent: Intent, outcome: Outcome | None) -> CallSummary:
    key, attempt, role, at = intent.key, intent.attempt, intent.role, intent.at
    if outcome is None:
        return CallSummary(key, attempt, role, CallStatus.OPEN, Usage(), None, at, None, True)
    usage = Usage(
        outcome.calls, outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens, outcome.usd
    )
    return CallSummary(
        key, attempt, role, outcome.status, usage, outcome.fault, at, outcome.at, outcome.maybe_paid
    )
