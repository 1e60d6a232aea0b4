"""A store in memory: the same contract as the journal's, for tests and dry runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import msgspec

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal.codec import digest_of, encode
from tfgrpo.journal.effects import check_usage
from tfgrpo.keys import Key, owner_text
from tfgrpo.protocols import Effect, Known, LeftOpen, Ticket
from tfgrpo.types import EffectKind, EffectStatus, Fault, Role, Usage

S = TypeVar("S", bound=msgspec.Struct)

_NO_USAGE = Usage()


class _Attempt:
    """One attempt at an effect; its values are kept as JSON, so that nothing is shared with the caller."""

    def __init__(self, effect: Effect, number: int, at: float) -> None:
        self.key = effect.key
        self.kind = effect.kind
        self.role = effect.role
        self.digest = effect.digest
        self.type = type(effect.request)
        self.request = encode(effect.request)
        self.number = number
        self.at = at
        self.status = EffectStatus.OPEN
        self.result = b""
        self.usage = _NO_USAGE
        self.fault: Fault | None = None
        self.seconds = 0.0


class _Ledger:
    """What outlives an engine."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.header: dict[str, Any] = msgspec.json.decode(encode(dict(header)))
        self.attempts: list[_Attempt] = []
        self.newest: dict[str, _Attempt] = {}
        self.records: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        self.closed: set[str] = set()


class MemoryStore:
    """A store that lives as long as the process. See `tfgrpo.protocols.Store`.

    Args:
        header: JSON values that describe the run.
        clock: gives the seconds since the epoch that intents and outcomes are stamped with.

    Attributes:
        stalled: set it to a paragraph to have intents wait, and to None to let them go on.
    """

    def __init__(
        self, header: Mapping[str, Any] | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._begin(_Ledger(header or {}), clock)

    def _begin(self, ledger: _Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._opened = len(ledger.attempts)
        self._earlier = [attempt for attempt in ledger.attempts if attempt.status is EffectStatus.OPEN]
        self._done = {
            attempt.key: owner_text(attempt.key.text)
            for attempt in ledger.newest.values()
            if attempt.status is EffectStatus.COMPLETED and attempt.key.inside
        }
        self._closed = False
        self._stalled: str | None = None
        self._changed = anyio.Event()

    def reopened(self) -> MemoryStore:
        """The store as the next engine finds it; this one is closed."""
        self._closed = True
        store = MemoryStore.__new__(MemoryStore)
        store._begin(self._ledger, self._clock)
        return store

    # --- state -------------------------------------------------------------------------------------------

    @property
    def header(self) -> Mapping[str, Any]:
        """The JSON values with which the store was made."""
        return self._ledger.header

    @property
    def stalled(self) -> str | None:
        """Why no intent is accepted just now, or None."""
        return self._stalled

    @stalled.setter
    def stalled(self, why: str | None) -> None:
        self._stalled = why
        self._changed.set()
        self._changed = anyio.Event()

    async def ready(self) -> None:
        """Return when intents are accepted; at once when they are."""
        self._check()
        while self._stalled is not None:
            await self._changed.wait()
            self._check()

    def usage(self) -> Mapping[Role, Usage]:
        """The cost of every finished attempt there is, by role, failed ones included."""
        sums: dict[Role, Usage] = {}
        for attempt in self._ledger.attempts:
            if attempt.status is not EffectStatus.OPEN:
                sums[attempt.role] = sums.get(attempt.role, _NO_USAGE) + attempt.usage
        return {role: sums[role] for role in sorted(sums)}

    def faults(self) -> Mapping[str, int]:
        """How many attempts at effects failed, by the name of the error."""
        return Counter(attempt.fault.error for attempt in self._ledger.attempts if attempt.fault is not None)

    def open_intents(self) -> int:
        """How many attempts are under way, or were in flight when an engine died: these may have been paid."""
        return sum(attempt.status is EffectStatus.OPEN for attempt in self._ledger.attempts)

    def seconds_a_call(self) -> Mapping[Role, float]:
        """How long the completed model calls of earlier engines took in the mean, by role."""
        took: dict[Role, list[float]] = {}
        for attempt in self._ledger.attempts[: self._opened]:
            model = attempt.kind in (EffectKind.MODEL, EffectKind.JUDGE)
            if model and attempt.status is EffectStatus.COMPLETED and attempt not in self._earlier:
                took.setdefault(attempt.role, []).append(attempt.seconds)
        return {role: sum(seconds) / len(seconds) for role, seconds in took.items() if sum(seconds) > 0}

    # --- effects -----------------------------------------------------------------------------------------

    async def find(self, key: Key, result: type[msgspec.Struct]) -> Known | None:
        """The newest attempt at an effect, or None if it was never intended, or let go with its closed owner."""
        attempt = self._ledger.newest.get(key.text)
        if attempt is None or (key.inside and owner_text(key.text) in self._ledger.closed):
            return None
        value = None
        if attempt.status is EffectStatus.COMPLETED:
            value = _decoded(attempt.result, result)
        return Known(attempt.number, attempt.status, attempt.digest, value, attempt.usage, attempt.fault)

    async def intend(self, effects: Sequence[Effect]) -> list[Ticket]:
        """Keep the intents of effects, all or none.

        Raises:
            JournalMismatchError: a key was intended before with another digest.
            JournalError: an effect is completed already, a key is there twice, the owner has its terminal record, or
                the store is closed.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._stalled is not None:
            await self.ready()
        self._check()
        now = self._clock()
        made = [_Attempt(effect, self._next_attempt(effect), now) for effect in effects]
        if len({attempt.key for attempt in made}) != len(made):
            raise JournalError("One effect was to be intended twice at once: each has a key of its own.")
        tickets: list[Ticket] = []
        for attempt in made:
            tickets.append(Ticket(attempt.key, attempt.number, len(self._ledger.attempts)))
            self._ledger.attempts.append(attempt)
            self._ledger.newest[attempt.key.text] = attempt
        await anyio.lowlevel.checkpoint()
        return tickets

    def _next_attempt(self, effect: Effect) -> int:
        owner = owner_text(effect.key.text)
        if owner in self._ledger.closed:
            raise JournalError(
                f"{owner!r} has its terminal record: nothing is done for it any more. Ask for the record before its "
                "effects."
            )
        known = self._ledger.newest.get(effect.key.text)
        if known is None:
            return 0
        if known.digest != effect.digest:
            raise JournalMismatchError(
                f"The request of the effect '{effect.key}' differs from the one before."
            )
        if known.status is EffectStatus.COMPLETED:
            raise JournalError(f"The effect '{effect.key}' has its outcome: take it from `find`.")
        return known.number + 1

    async def complete(self, ticket: Ticket, result: msgspec.Struct, usage: Usage) -> None:
        """Keep the result of an attempt.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or the store is closed.
        """
        body = encode(result)
        self._end(ticket, EffectStatus.COMPLETED, usage).result = body
        await anyio.lowlevel.checkpoint()

    async def fail(self, ticket: Ticket, fault: Fault, *, maybe_paid: bool, usage: Usage = _NO_USAGE) -> None:
        """Keep the failure of an attempt.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or the store is closed.
        """
        encode(fault)
        self._end(ticket, EffectStatus.FAILED, usage).fault = fault
        await anyio.lowlevel.checkpoint()

    def _end(self, ticket: Ticket, status: EffectStatus, usage: Usage) -> _Attempt:
        self._check()
        attempt = None
        if self._opened <= ticket.row < len(self._ledger.attempts):
            attempt = self._ledger.attempts[ticket.row]
        if (
            attempt is None
            or attempt.key != ticket.key
            or attempt.status is not EffectStatus.OPEN
            or self._ledger.newest[ticket.key.text] is not attempt
        ):
            raise JournalError(
                f"Attempt {ticket.attempt} at the effect '{ticket.key}' is not open: an attempt is intended once and "
                "ends once."
            )
        check_usage(usage)
        attempt.status, attempt.usage, attempt.seconds = status, usage, self._clock() - attempt.at
        return attempt

    def done(self, owner: Key) -> Sequence[Key]:
        """The completed effects of an owner that an earlier engine left without its terminal record."""
        if owner.text in self._ledger.closed:
            return []
        return [key for key, owned_by in self._done.items() if owned_by == owner.text]

    async def left_open(self) -> AsyncIterator[LeftOpen]:
        """The attempts that earlier engines had in flight when they ended."""
        for attempt in self._earlier:
            yield LeftOpen(attempt.key, attempt.kind, attempt.role, _decoded(attempt.request, attempt.type))

    # --- records -----------------------------------------------------------------------------------------

    async def record(self, kind: str, key: Key, value: msgspec.Struct, *, ends: Key | None = None) -> None:
        """Keep a terminal record; the same value under the same key again is a no-op.

        Raises:
            JournalMismatchError: the key holds another value.
            JournalError: the value has no JSON encoding, or the store is closed.
        """
        self._check()
        digest = digest_of(value)
        records = self._ledger.records.setdefault(kind, {})
        known = records.get(key.text)
        if known is not None and known[0] != digest:
            raise JournalMismatchError(
                f"The {kind} '{key}' has another value already: a terminal record never changes."
            )
        if known is None:
            records[key.text] = digest, encode(value)
            self._ledger.closed.add(key.text if ends is None else ends.text)
        await anyio.lowlevel.checkpoint()

    async def get(self, kind: str, key: Key, type: type[S]) -> S | None:  # noqa: A002
        """One record, or None."""
        known = self._ledger.records.get(kind, {}).get(key.text)
        return None if known is None else _decoded(known[1], type)

    async def records(self, kind: str, type: type[S], under: str = "") -> AsyncIterator[tuple[Key, S]]:  # noqa: A002
        """The records of one kind in the order of their keys."""
        for text, (_, body) in sorted(self._ledger.records.get(kind, {}).items()):
            if text.startswith(under):
                yield Key.parse(text), _decoded(body, type)

    # --- life --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed:
            raise JournalError("The store is closed: open it again with `reopened`.")

    async def aclose(self) -> None:
        """Accept nothing more. A second call does nothing."""
        self._closed = True
        self.stalled = self._stalled

    async def __aenter__(self) -> MemoryStore:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def _decoded(body: bytes, type_: type[S]) -> S:
    try:
        return msgspec.json.decode(body, type=type_)
    except ValueError as error:
        raise JournalError(f"The value in the store is no {type_.__name__}: {error}.") from error
