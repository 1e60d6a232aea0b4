"""The effects that somebody may still ask for, by owner, and the sums over all that ended."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator

import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.journal.index import LAST_TAG, Index
from tfgrpo.journal.rowreader import RowReader
from tfgrpo.journal.rows import Intent, Outcome, Record
from tfgrpo.keys import owner_text
from tfgrpo.types import EffectKind, EffectStatus, Role, Usage

#: Tags of the index: outcomes of effects that are their own owner; what is closed by a record of another key; then one
#: tag for each kind of record.
_ENDED, _CLOSED, _FIRST_KIND = 0, 1, 2


class KnownEffect(msgspec.Struct, gc=False):
    """The newest attempt at an effect, as it is kept in memory.

    `row` is that of its intent, `end` that of its outcome once there is one on the way or on disk: then
    `status` tells which.
    """

    key: str
    row: int
    attempt: int
    kind: EffectKind
    role: Role
    digest: bytes
    at: float
    status: EffectStatus = EffectStatus.OPEN
    end: int = 0


class Sums:
    """What the finished attempts of one role cost together."""

    __slots__ = ("cached_tokens", "calls", "input_tokens", "output_tokens", "usd")

    def __init__(self) -> None:
        self.calls = self.input_tokens = self.cached_tokens = self.output_tokens = 0
        self.usd = 0.0

    def add(self, head: Outcome) -> None:
        """Count the end of an attempt."""
        self.calls += head.calls
        self.input_tokens += head.input_tokens
        self.cached_tokens += head.cached_tokens
        self.output_tokens += head.output_tokens
        self.usd += head.usd

    @property
    def usage(self) -> Usage:
        """The sum."""
        return Usage(self.calls, self.input_tokens, self.cached_tokens, self.output_tokens, self.usd)


class Effects:
    """What a journal remembers: all of what is under way, and of what is finished only where it stands.

    Effects are kept by owner until a record closes the owner; those that are their own owner until they end.

    Attributes:
        owners: the effects of each owner that is not closed, by key.
        left_open: rows of the attempts that earlier engines had in flight when they ended.
        sums: what finished attempts cost, by role.
        faults: how many of them failed, by the name of the error.
        seconds: how long the completed model calls of earlier engines took in the mean, by role.
    """

    def __init__(self) -> None:
        self.owners: dict[str, dict[str, KnownEffect]] = {}
        self.left_open = array("I")
        self.sums: dict[Role, Sums] = {}
        self.seconds: dict[Role, float] = {}
        self.faults: dict[str, int] = {}
        self._index = Index()
        self._tags: dict[str, int] = {}

    def load(self, reader: RowReader) -> int:
        """Read the heads of all rows.

        Returns:
            The last row.

        Raises:
            JournalError: the file is damaged.
        """
        owners, append = self.owners, self._index.append
        pending: dict[int, KnownEffect] = {}
        took: dict[Role, list[float]] = {role: [0, 0.0] for role in Role}
        row = 0
        for row, head in reader.heads(0):
            if type(head) is Intent:
                key = head.key
                effect = KnownEffect(key, row, head.attempt, head.kind, head.role, head.digest, head.at)
                pending[row] = effect
                owner = owner_text(key)
                known = owners.get(owner)
                if known is None:
                    owners[owner] = {key: effect}
                else:
                    known[key] = effect
            elif type(head) is Outcome:
                try:
                    effect = pending.pop(head.call)
                except KeyError:
                    raise reader.damaged(f"row {row} ends an attempt that is not open") from None
                effect.status, effect.end = head.status, row
                if head.status is EffectStatus.COMPLETED and effect.kind in (
                    EffectKind.MODEL,
                    EffectKind.JUDGE,
                ):
                    mean = took[head.role]
                    mean[0] += 1
                    mean[1] += head.at - effect.at
                self._sum(head)
                if owner_text(effect.key) == effect.key:
                    append(_ENDED, effect.key, row)
                    self._forget(effect)
            elif type(head) is Record:
                self._note_record(append, head.kind, head.key, head.closes, row)
                owners.pop(head.closes, None)
        self._index.sort()
        self.left_open.extend(pending)
        self.seconds = {role: seconds / count for role, (count, seconds) in took.items() if seconds > 0}
        return row

    # --- effects -----------------------------------------------------------------------------------------

    def ended(self, effect: KnownEffect, head: Outcome) -> None:
        """The outcome of an attempt is durable."""
        effect.status = head.status
        self._sum(head)
        if owner_text(effect.key) == effect.key:
            self._index.add(_ENDED, effect.key, effect.end)
            self._forget(effect)

    def _forget(self, effect: KnownEffect) -> None:
        """Let go of an effect that is its own owner, unless it has a newer attempt."""
        effects = self.owners.get(effect.key)
        if effects is not None and effects.get(effect.key) is effect:
            del self.owners[effect.key]

    def _sum(self, head: Outcome) -> None:
        sums = self.sums.get(head.role)
        if sums is None:
            sums = self.sums[head.role] = Sums()
        sums.add(head)
        if head.fault is not None:
            self.faults[head.fault.error] = self.faults.get(head.fault.error, 0) + 1

    # --- what is finished --------------------------------------------------------------------------------

    def outcome_rows(self, key: str) -> list[int]:
        """Rows that may be outcomes of an effect that is its own owner."""
        return self._index.rows(_ENDED, key)

    def finished_rows(self, owner: str) -> list[int]:
        """Rows that may have closed an owner, or be the outcomes of an effect that is its own."""
        return self._index.all_rows(owner)

    def record_rows(self, kind: str, key: str) -> list[int]:
        """Rows that may hold a record."""
        tag = self._tags.get(kind)
        return [] if tag is None else self._index.rows(tag, key)

    def rows_of_kind(self, kind: str) -> Iterator[int]:
        """The rows that may hold records of a kind, in no order; safe in another thread."""
        tag = self._tags.get(kind)
        return iter(()) if tag is None else self._index.tagged(tag)

    def recorded(self, kind: str, key: str, closes: str, row: int) -> None:
        """A record is durable: let go of what it closes."""
        self._note_record(self._index.add, kind, key, closes, row)
        self.owners.pop(closes, None)

    def _note_record(self, add: object, kind: str, key: str, closes: str, row: int) -> None:
        tag = self._tags.get(kind)
        if tag is None:  # the last tag is shared: a row is compared with what was looked for anyhow
            tag = self._tags[kind] = min(_FIRST_KIND + len(self._tags), LAST_TAG)
        assert callable(add)  # noqa: S101
        add(tag, key, row)
        if closes != key:
            add(_CLOSED, closes, row)


def check_usage(usage: Usage) -> None:
    """Refuse what no effect can have cost.

    Raises:
        JournalError: as said.
    """
    counts = (usage.calls, usage.input_tokens, usage.cached_tokens, usage.output_tokens)
    if min(counts) < 0 or max(counts) >= 2**40 or not math.isfinite(usage.usd):
        raise JournalError(f"An effect cannot have cost {usage}: reject such a result where it is received.")
