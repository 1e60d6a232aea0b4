"""The reading side: works on a live journal, on a finished one, and on one that a crash left behind."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.journal.index import LAST_TAG, Index
from tfgrpo.journal.rowreader import KeyOrder, RowReader
from tfgrpo.journal.rows import Intent, Outcome, Record
from tfgrpo.journal.schema import SYSTEM, Files
from tfgrpo.keys import Key
from tfgrpo.types import EffectKind, EffectStatus, Fault, Role, Struct, Usage

S = TypeVar("S", bound=msgspec.Struct)

#: Values that are read at a time.
_PAGE = 256

#: The tag of intents in the index; kinds of records have those behind it.
_INTENT = 0


class CallSummary(Struct, frozen=True):
    """One attempt at an effect, without its texts.

    `finished_at` and `fault` are None where there is none. `maybe_paid` is True for a failed attempt whose
    other side may have done the work, and for every open one: nobody knows.
    """

    key: Key
    attempt: int
    kind: EffectKind
    role: Role
    state: EffectStatus
    usage: Usage
    fault: Fault | None
    intended_at: float
    finished_at: float | None
    maybe_paid: bool


class JournalReader:
    """Reads a journal; never changes it. One thread at a time; readers do not delay the writer.

    All methods read what is durable at the moment of the call, and are synchronous. The first sum or look-up
    reads the small rows of the whole run, a second or so for 200,000 effects; later ones only what is new. It takes
    four bytes of memory a row of the run and eight an effect or record. A file of version 2 is read as well: its
    keys come out as they are written today.

    Args:
        path: the journal file.

    Raises:
        JournalError: from every method: the file is missing, damaged, closed, or of another version.

    Attributes:
        header: the JSON values of the first row.
    """

    def __init__(self, path: Path, *, _files: Files = SYSTEM) -> None:
        self.path = path
        self._rows = RowReader(path, _files)
        self.header: dict[str, Any] = self._rows.header
        self._last = 0
        self._index = Index()
        self._tags: dict[str, int] = {}
        self._ends = array("I", [0])  # the row of the outcome, by the row of the intent
        self._intents = self._outcomes = 0
        self._usage: dict[Role, Usage] = {}
        self._faults: dict[str, int] = {}

    # --- records -----------------------------------------------------------------------------------------

    def iterate(self, kind: str, type: type[S], under: str = "") -> Iterator[tuple[Key, S]]:  # noqa: A002
        """The records of one kind in the order of their keys, read in pages: memory stays bounded.

        Messages that records of a page share are decoded once and shared in memory as well.

        Args:
            kind: as it was given to `record`.
            type: of the values.
            under: the beginning of the keys' text.
        """
        self._look_up()
        order = KeyOrder(self._pairs(kind, under))
        try:
            after = ""
            while page := order.page(after, _PAGE):
                values = self._rows.values([row for _, row in page], type)
                for (key, _), value in zip(page, values, strict=True):
                    yield Key.parse(key), value
                after = page[-1][0]
        finally:
            order.close()

    def records(self, kind: str, type: type[S], under: str = "") -> dict[Key, S]:  # noqa: A002
        """The same, all at once; `iterate` where there may be many."""
        return dict(self.iterate(kind, type, under))

    def get(self, kind: str, key: Key, type: type[S]) -> S | None:  # noqa: A002
        """One record, or None."""
        self._look_up()
        for row in self._rows_of(kind, key.text):
            head = self._rows.head(row)
            if _is_record(head, kind) and head.key == key.text:
                return self._rows.value(row, type)
        return None

    # --- effects -----------------------------------------------------------------------------------------

    def calls(self) -> Iterator[CallSummary]:
        """Every attempt at every effect, in the order of the intents."""
        self._look_up()
        last = self._last
        for row, head in self._rows.heads(0):
            if row > last:
                return  # what came meanwhile may have ended meanwhile
            if type(head) is Intent:
                end = self._ends[row]
                yield _summary(head, self._rows.head(end) if end else None)

    def usage_by_role(self) -> dict[Role, Usage]:
        """What the finished attempts cost, failed ones included, for each role that made a call."""
        self._look_up()
        return {role: self._usage[role] for role in sorted(self._usage)}

    def faults_by_kind(self) -> dict[str, int]:
        """How many attempts failed, by the name of the error (`Fault.error`)."""
        self._look_up()
        return dict(sorted(self._faults.items()))

    def open_intents(self) -> int:
        """How many attempts have an intent and no outcome.

        On a live journal these are the effects in flight; on a journal whose engine has ended they are the
        only ones that can have been paid for without an answer, those of earlier crashes included.
        """
        self._look_up()
        return self._intents - self._outcomes

    def request(self, key: Key, attempt: int, type: type[S]) -> S:  # noqa: A002
        """The request of one attempt.

        Raises:
            JournalError: there is no such attempt (or the file is damaged).
        """
        return self._rows.value(self._find(key, attempt), type)

    def result(self, key: Key, attempt: int, type: type[S]) -> S | None:  # noqa: A002
        """The result of one attempt, or None where it failed or is open.

        Raises:
            JournalError: there is no such attempt (or the file is damaged).
        """
        end = self._ends[self._find(key, attempt)]
        if not end or self._rows.head(end).status is not EffectStatus.COMPLETED:
            return None
        return self._rows.result(end, type)

    # --- life --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._rows.close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- parts -------------------------------------------------------------------------------------------

    def _look_up(self) -> None:
        """Read the heads that are new."""
        ends, index = self._ends, self._index
        append = index.add if self._last else index.append
        sums: dict[Role, list[Any]] = {}
        for row, head in self._rows.heads(self._last):
            ends.append(0)
            if type(head) is Outcome:
                ends[head.call] = row
                self._outcomes += 1
                _add(sums, head)
                if head.fault is not None:
                    self._faults[head.fault.error] = self._faults.get(head.fault.error, 0) + 1
            elif type(head) is Intent:
                self._intents += 1
                append(_INTENT, head.key, row)
            elif type(head) is Record:
                tag = self._tags.setdefault(head.kind, min(1 + len(self._tags), LAST_TAG))
                append(tag, head.key, row)
            self._last = row
        if append == index.append:
            index.sort()
        for role, sum_ in sums.items():
            self._usage[role] = self._usage.get(role, Usage()) + Usage(*sum_)

    def _rows_of(self, kind: str, key: str) -> list[int]:
        tag = self._tags.get(kind)
        return [] if tag is None else self._index.rows(tag, key)

    def _pairs(self, kind: str, under: str) -> Iterator[tuple[str, int]]:
        tag = self._tags.get(kind)
        for row in sorted(self._index.tagged(tag)) if tag is not None else ():
            head = self._rows.head(row)
            if _is_record(head, kind) and head.key.startswith(under):
                yield head.key, row

    def _find(self, key: Key, attempt: int) -> int:
        self._look_up()
        for row in self._index.rows(_INTENT, key.text):
            head = self._rows.head(row)
            if (head.key, head.attempt) == (key.text, attempt):
                return row
        raise JournalError(
            f"The journal {self.path} has no attempt {attempt} at the effect '{key}'. All keys are in "
            "JournalReader.calls()."
        )


def _is_record(head: Any, kind: str) -> bool:
    return type(head) is Record and head.kind == kind


def _add(sums: dict[Role, list[Any]], head: Outcome) -> None:
    found = sums.get(head.role)
    if found is None:
        found = sums[head.role] = [0, 0, 0, 0, 0.0]
    found[0] += head.calls
    found[1] += head.input_tokens
    found[2] += head.cached_tokens
    found[3] += head.output_tokens
    found[4] += head.usd


def _summary(intent: Intent, outcome: Outcome | None) -> CallSummary:
    key, attempt, kind, role, at = (
        Key.parse(intent.key),
        intent.attempt,
        intent.kind,
        intent.role,
        intent.at,
    )
    if outcome is None:
        return CallSummary(key, attempt, kind, role, EffectStatus.OPEN, Usage(), None, at, None, True)
    usage = Usage(
        outcome.calls, outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens, outcome.usd
    )
    return CallSummary(
        key, attempt, kind, role, outcome.status, usage, outcome.fault, at, outcome.at, outcome.maybe_paid
    )
