"""The plan of faults, which calls break and how: data, the same whatever order the calls finish in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from tfgrpo.types import ModelRequest


class FaultType(StrEnum):
    """The ways in which a call breaks, as a client meets them."""

    CONNECT = "connect"
    """No connection. (A running loopback server cannot refuse one: it resets it before any work.)"""
    RESET_BEFORE = "reset_before"
    """The connection is reset before the work is done."""
    RESET_AFTER = "reset_after"
    """The connection is reset after the work is done and paid."""
    CUT_BODY = "cut_body"
    """Half of the answer, then the connection breaks."""
    RESET_STREAM = "reset_stream"
    """Half of the answer, then the connection is reset."""
    SLOW_BODY = "slow_body"
    """The answer arrives in small pieces over `seconds`."""
    SLOW_LORIS = "slow_loris"
    """The answer arrives byte by byte, `pause` seconds apart: never silent, never done."""
    LARGE_BODY = "large_body"
    """A good answer in a body of ten megabytes."""
    HUGE_BODY = "huge_body"
    """200, and a body without end."""
    TIMEOUT = "timeout"
    """The work is done and paid, and no answer comes for `seconds`."""
    RATE_LIMITED = "rate_limited"
    """429, with `retry_after`."""
    SERVER_ERROR = "server_error"
    """500."""
    OVERLOADED = "overloaded"
    """503, with `retry_after`."""
    MALFORMED = "malformed"
    """200, and a body that is not JSON."""
    MALFORMED_STREAM = "malformed_stream"
    """200, and in the middle of the stream an event that is not JSON (MALFORMED where no stream is asked)."""
    WRONG_COUNT = "wrong_count"
    """200, and one choice fewer than asked."""
    WRONG_USAGE = "wrong_usage"
    """A good answer whose usage is nonsense."""
    NO_USAGE = "no_usage"
    """A good answer without usage."""
    AUTHENTICATION = "authentication"
    """401."""
    QUOTA = "quota"
    """429 with the code `insufficient_quota`."""
    UNKNOWN_MODEL = "unknown_model"
    """404 with the code `model_not_found`."""
    CONTEXT_LENGTH = "context_length"
    """400 with the code `context_length_exceeded`."""
    CONTENT_FILTER = "content_filter"
    """400 with the code `content_filter`."""
    INVALID_REQUEST = "invalid_request"
    """400."""

    @property
    def paid(self) -> bool:
        """Tell whether the provider does (and bills) the work although the call breaks."""
        return self in _PAID

    @property
    def answered(self) -> bool:
        """Tell whether a patient client gets a usable answer all the same."""
        return self in _ANSWERED


_ANSWERED = frozenset({FaultType.SLOW_BODY, FaultType.LARGE_BODY, FaultType.WRONG_USAGE, FaultType.NO_USAGE})
_PAID = _ANSWERED | {
    FaultType.RESET_AFTER,
    FaultType.CUT_BODY,
    FaultType.RESET_STREAM,
    FaultType.SLOW_LORIS,
    FaultType.HUGE_BODY,
    FaultType.TIMEOUT,
    FaultType.MALFORMED,
    FaultType.MALFORMED_STREAM,
    FaultType.WRONG_COUNT,
}

#: Faults that another attempt can cure: what a random plan draws from when it is not told otherwise.
TRANSIENT = (
    FaultType.CONNECT,
    FaultType.RESET_BEFORE,
    FaultType.RESET_AFTER,
    FaultType.CUT_BODY,
    FaultType.RATE_LIMITED,
    FaultType.SERVER_ERROR,
    FaultType.OVERLOADED,
    FaultType.MALFORMED,
)


@dataclass(frozen=True)
class PlannedFault:
    """One fault.

    Args:
        type: how the call breaks.
        retry_after: seconds the answer asks to wait (429 and 503).
        seconds: how long a TIMEOUT hangs or a SLOW_BODY takes.
        pause: seconds between two bytes of a SLOW_LORIS.
    """

    type: FaultType
    retry_after: float | None = None
    seconds: float = 3600.0
    pause: float = 1.0


@dataclass(frozen=True)
class Call:
    """One arriving call: its logical key, which attempt of that key, which call in all (both from 1)."""

    key: str
    attempt: int
    nth: int
    request: ModelRequest


@dataclass(frozen=True)
class _Random:
    seed: int
    rate: float
    types: tuple[FaultType, ...]
    attempts: int | None
    retry_after: float | None
    seconds: float

    def __call__(self, call: Call) -> PlannedFault | None:
        if self.attempts is not None and call.attempt > self.attempts:
            return None
        text = f"{self.seed}\0{call.key}\0{call.attempt}".encode()
        digest = hashlib.sha256(text).digest()
        if int.from_bytes(digest[:8], "big") >= self.rate * 2**64:
            return None
        chosen = self.types[int.from_bytes(digest[8:12], "big") % len(self.types)]
        return PlannedFault(chosen, self.retry_after, self.seconds)


@dataclass(frozen=True)
class _OnKey:
    key: str
    fault: PlannedFault
    attempts: int

    def __call__(self, call: Call) -> PlannedFault | None:
        return self.fault if call.key == self.key and call.attempt <= self.attempts else None


@dataclass(frozen=True)
class _At:
    nth: int
    fault: PlannedFault

    def __call__(self, call: Call) -> PlannedFault | None:
        return self.fault if call.nth == self.nth else None


@dataclass(frozen=True)
class _When:
    predicate: Callable[[Call], bool]
    fault: PlannedFault

    def __call__(self, call: Call) -> PlannedFault | None:
        return self.fault if self.predicate(call) else None


@dataclass(frozen=True)
class FaultPlan:
    """An immutable list of rules; the first that fits a call decides. `FaultPlan()` breaks nothing.

    Build one by chaining: `FaultPlan().at(3, FaultType.RESET_AFTER).on_key("k", FaultType.SERVER_ERROR)`.
    Its repr shows every rule, so that a failing hypothesis example can be pasted into a test.
    """

    rules: tuple[Callable[[Call], PlannedFault | None], ...] = ()

    def at(self, nth: int, fault: FaultType | PlannedFault) -> FaultPlan:
        """Break the nth call (from 1) in order of arrival: for tests with one call at a time."""
        return self._with(_At(nth, _planned(fault)))

    def on_key(self, key: str, fault: FaultType | PlannedFault, *, attempts: int = 1) -> FaultPlan:
        """Break the first `attempts` attempts of the call with this logical key."""
        return self._with(_OnKey(key, _planned(fault), attempts))

    def when(self, predicate: Callable[[Call], bool], fault: FaultType | PlannedFault) -> FaultPlan:
        """Break every call that the predicate holds for."""
        return self._with(_When(predicate, _planned(fault)))

    @staticmethod
    def random(
        seed: int,
        rate: float,
        types: Collection[FaultType] = TRANSIENT,
        *,
        attempts: int | None = None,
        retry_after: float | None = 0.0,
        seconds: float = 3600.0,
    ) -> FaultPlan:
        """Break a share of all calls, decided by a hash of (seed, key, attempt).

        Args:
            seed: another seed, another plan.
            rate: the share in [0, 1] of attempts that break.
            types: what to draw from.
            attempts: only the first so many attempts of a key may break; None: any.
            retry_after: for 429 and 503, in seconds.
            seconds: for TIMEOUT and SLOW_BODY.
        """
        if not types:
            raise ValueError("a random fault plan needs at least one fault type")
        return FaultPlan((_Random(seed, rate, tuple(types), attempts, retry_after, seconds),))

    def decide(self, call: Call) -> PlannedFault | None:
        """The fault of a call, or None."""
        for rule in self.rules:
            if (fault := rule(call)) is not None:
                return fault
        return None

    def _with(self, rule: Callable[[Call], PlannedFault | None]) -> FaultPlan:
        return replace(self, rules=(*self.rules, rule))


def _planned(fault: FaultType | PlannedFault) -> PlannedFault:
    return fault if isinstance(fault, PlannedFault) else PlannedFault(fault)
