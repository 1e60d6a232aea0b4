"""The reading side: works on a live journal, on a finished one, and on one that a crash left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.journal.codec import Unpacker, unfold
from tfgrpo.journal.schema import CallStatus, connect, guarded
from tfgrpo.types import Fault, Message, ModelReply, ModelRequest, Role, Struct, Usage

S = TypeVar("S", bound=msgspec.Struct)

#: Rows of one read transaction: a long one would keep a live journal's log from being folded in.
_PAGE = 5_000


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


class CallIndexRow(Struct, frozen=True, array_like=True):
    """What opening reads of each attempt; `state` is None while there is no outcome."""

    id: int
    key: str
    attempt: int
    request: bytes
    state: CallStatus | None


class JournalReader:
    """Reads a journal; never changes it. One thread at a time; readers do not delay the writer.

    All methods read what is durable at the moment of the call, and are synchronous: single look-ups take
    well under a millisecond, `records` and the sums over all calls take time in proportion to the run.

    Args:
        path: the journal file.

    Raises:
        JournalError: from every method: the file is missing, damaged, closed, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unpacker = Unpacker()
        self._connection = connect(path, write=False)
        try:
            self.header = self._read_header()
        except BaseException:
            self._connection.close()
            raise

    header: dict[str, Any]

    def _read_header(self) -> dict[str, Any]:
        with guarded(self.path):
            rows = self._query("SELECT value FROM meta WHERE name = 'header'")
            return msgspec.json.decode(rows[0][0] if rows else "", type=dict[str, Any])

    # --- records -----------------------------------------------------------------------------------------

    def records(self, kind: str, type: type[S], prefix: str = "") -> dict[str, S]:  # noqa: A002
        """The records of one kind whose key starts with `prefix`, by key, in the order of the keys.

        Messages that records share are decoded once and shared in memory as well.
        """
        seen: dict[bytes, Message] = {}

        def load(key: bytes) -> Message:
            if key not in seen:
                seen[key] = self._message(key)
            return seen[key]

        found: dict[str, S] = {}
        with guarded(self.path):
            sql = "SELECT key, body FROM records WHERE kind = ? AND key >= ? ORDER BY key"
            with contextlib.closing(self._connection.execute(sql, (kind, prefix))) as rows:
                for key, body in rows:
                    if not key.startswith(prefix):
                        break
                    found[key] = unfold(self._unpacker.unpack(body), type, load)
        return found

    def get(self, kind: str, key: str, type: type[S]) -> S | None:  # noqa: A002
        """One record, or None."""
        with guarded(self.path):
            rows = self._query("SELECT body FROM records WHERE kind = ? AND key = ?", (kind, key))
            return unfold(self._unpacker.unpack(rows[0][0]), type, self._message) if rows else None

    # --- calls -------------------------------------------------------------------------------------------

    def calls(self) -> Iterator[CallSummary]:
        """Every attempt of every call, in the order of the intents."""
        last = 0
        while True:
            with guarded(self.path):
                page = self._query(
                    "SELECT c.id, c.key, c.attempt, c.role, c.intended, o.status, o.finished, o.maybe_paid, "
                    "o.calls, o.input_tokens, o.cached_tokens, o.output_tokens, o.usd, o.fault "
                    "FROM calls c LEFT JOIN outcomes o ON o.id = c.id WHERE c.id > ? ORDER BY c.id LIMIT ?",
                    (last, _PAGE),
                )
                summaries = [_summary(row) for row in page]
            yield from summaries
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def usage_by_role(self) -> dict[Role, Usage]:
        """What the finished attempts cost, failed ones included, for each role that made a call."""
        with guarded(self.path):
            rows = self._query(
                "SELECT c.role, sum(o.calls), sum(o.input_tokens), sum(o.cached_tokens), "
                "sum(o.output_tokens), sum(o.usd) "
                "FROM calls c JOIN outcomes o ON o.id = c.id GROUP BY c.role ORDER BY c.role"
            )
            return {Role(role): Usage(*sums) for role, *sums in rows}

    def faults_by_kind(self) -> dict[str, int]:
        """How many attempts failed, by the name of the error (`Fault.error`)."""
        with guarded(self.path):
            rows = self._query(
                "SELECT json_extract(fault, '$.error') AS error, count(*) FROM outcomes "
                "WHERE fault IS NOT NULL GROUP BY error ORDER BY error"
            )
            return msgspec.convert(dict(rows), dict[str, int])

    def open_intents(self) -> int:
        """How many attempts have an intent and no outcome.

        On a live journal these are the calls in flight; on a journal whose engine has ended they are the
        only calls that can have been paid for without an answer, those of earlier crashes included.
        """
        with guarded(self.path):
            count: int = self._query("SELECT (SELECT count(*) FROM calls) - (SELECT count(*) FROM outcomes)")[
                0
            ][0]
            return count

    def request(self, key: str, attempt: int) -> ModelRequest:
        """The request of one attempt.

        Raises:
            JournalError: there is no such attempt (or the file is damaged).
        """
        _, digest = self._find(key, attempt)
        with guarded(self.path):
            return unfold(self._blob(digest), ModelRequest, self._message)

    def reply(self, key: str, attempt: int) -> ModelReply | None:
        """The reply of one attempt, or None where it failed or is open.

        Raises:
            JournalError: there is no such attempt (or the file is damaged).
        """
        return self.reply_of(self._find(key, attempt)[0])

    # --- for the writing side, which knows the row ids ---------------------------------------------------

    def reply_of(self, call: int) -> ModelReply | None:
        """The reply of the attempt with this row id."""
        with guarded(self.path):
            rows = self._query("SELECT body FROM replies WHERE id = ?", (call,))
            return msgspec.json.decode(self._unpacker.unpack(rows[0][0]), type=ModelReply) if rows else None

    def fault_of(self, call: int) -> Fault | None:
        """The fault of the attempt with this row id."""
        with guarded(self.path):
            rows = self._query("SELECT fault FROM outcomes WHERE id = ?", (call,))
            return _fault(rows[0][0]) if rows else None

    def call_index(self) -> list[CallIndexRow]:
        """Every attempt, in the order of the intents: one scan of the small tables."""
        with guarded(self.path):
            rows = self._query(
                "SELECT c.id, c.key, c.attempt, c.request, o.status "
                "FROM calls c LEFT JOIN outcomes o ON o.id = c.id ORDER BY c.id"
            )
            return msgspec.convert(rows, list[CallIndexRow])

    def record_index(self) -> dict[tuple[str, str], bytes]:
        """The digest of every record by (kind, key): one scan of a covering index."""
        with guarded(self.path):
            rows = self._query("SELECT kind, key, digest FROM records")
            return {(kind, key): digest for kind, key, digest in rows}

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._connection.close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- parts -------------------------------------------------------------------------------------------

    def _query(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, bindings).fetchall()

    def _find(self, key: str, attempt: int) -> tuple[int, bytes]:
        with guarded(self.path):
            rows = self._query("SELECT id, request FROM calls WHERE key = ? AND attempt = ?", (key, attempt))
        if not rows:
            raise JournalError(
                f"The journal {self.path} has no attempt {attempt} of the call {key!r}. All keys are in "
                "JournalReader.calls()."
            )
        call, digest = rows[0]
        return call, digest

    def _blob(self, key: bytes) -> bytes:
        rows = self._query("SELECT body FROM blobs WHERE hash = ?", (key,))
        if not rows:
            raise ValueError(f"content {key.hex()} is missing")
        return self._unpacker.unpack(rows[0][0])

    def _message(self, key: bytes) -> Message:
        return msgspec.json.decode(self._blob(key), type=Message)


def _summary(row: tuple[Any, ...]) -> CallSummary:
    _, key, attempt, role, intended, status, finished, maybe_paid, *usage, fault = row
    if status is None:
        return CallSummary(key, attempt, Role(role), CallStatus.OPEN, Usage(), None, intended, None, True)
    return CallSummary(
        key,
        attempt,
        Role(role),
        CallStatus(status),
        Usage(*usage),
        _fault(fault),
        intended,
        finished,
        bool(maybe_paid),
    )


def _fault(text: str | None) -> Fault | None:
    return None if text is None else msgspec.json.decode(text, type=Fault)
