"""From the headers of a response to what they say of the provider's limits. Pure but for the clock it is given.

Three families of names are in use: `x-ratelimit-*` (a reset is a duration), `anthropic-ratelimit-*` (a reset is a
timestamp) and the IETF drafts' `RateLimit`. What cannot be read is passed over: headers are advice, never an error.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal

import msgspec

from tfgrpo.protocols import LimitReading

Kind = Literal["requests", "tokens", "input_tokens", "output_tokens"]

_KINDS: dict[str, Kind] = {
    "requests": "requests",
    "tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
}
_UNIT = "|".join(_KINDS)
_NAME = re.compile(
    rf"(x-|anthropic-)?ratelimit-(?:({_UNIT})-)?(limit|remaining|reset)(?:-({_UNIT}))?", re.IGNORECASE
)
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(d|h|ms|m|s|us|µs|μs|ns)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SECONDS |= {"µs": 1e-6, "μs": 1e-6}
_LETTERS = frozenset("dhms")
_LONGEST = 64

#: A plain number from here on is no number of seconds but a moment: seconds since 1970, or milliseconds.
_EPOCH, _EPOCH_MS, _NONSENSE = 1e9, 1e11, 1e14

#: How often the names are looked for again where they are known: a gateway may route to another provider.
_LOOK_AGAIN = 64


class _Source(msgspec.Struct):
    """The names of the headers that describe one limit; "" where the endpoint sends none."""

    kind: Kind
    limit: str = ""
    remaining: str = ""
    reset: str = ""


class LimitReader:
    """Reads the rate headers of one endpoint.

    The names that it sends are found out once and then looked up directly; all names are gone through again as
    long as none is known, on every error, and now and then.

    Args:
        clock: seconds since 1970; asked only where a moment has to be measured and the response has no `Date`.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._sources: tuple[_Source, ...] = ()
        self._draft = False
        self._names: frozenset[str] = frozenset()
        self._left = 0

    def read(self, headers: Mapping[str, str], status: int = 200) -> tuple[LimitReading, ...]:
        """Read a response's headers: at most one reading a kind; never raises.

        Args:
            headers: a case-insensitive mapping.
            status: the HTTP status.
        """
        if self._left <= 0 or status >= 400:
            self._look(headers)
        self._left -= 1
        if not self._names:
            return ()
        found: dict[str, LimitReading] = {}
        for source in self._sources:
            if source.kind not in found and (reading := self._reading(source, headers)) is not None:
                found[source.kind] = reading
        if self._draft:
            for reading in _read_draft(headers.get("RateLimit"), headers.get("RateLimit-Policy")):
                found.setdefault(reading.kind, reading)
        return tuple(found.values())

    def _look(self, headers: Mapping[str, str]) -> None:
        """Learn which names the endpoint sends; a name once seen is never forgotten."""
        names = frozenset(name for name in headers if "ratelimit" in name.lower()) - self._names
        if names:
            self._names |= names
            self._sources = _sources(self._names)
            self._draft = any(name.lower() in {"ratelimit", "ratelimit-policy"} for name in self._names)
        self._left = _LOOK_AGAIN if self._names else 0

    def _reading(self, source: _Source, headers: Mapping[str, str]) -> LimitReading | None:
        limit = _number(headers.get(source.limit)) if source.limit else None
        if limit is not None and limit <= 0:
            return None  # some Azure routes say 0 or -1 for "not known"
        remaining = _number(headers.get(source.remaining)) if source.remaining else None
        if remaining is not None and remaining < 0:
            remaining = None
        if limit is None and remaining is None:
            return None
        reset = headers.get(source.reset) if source.reset else None
        return LimitReading(source.kind, limit, remaining, self._seconds(reset, headers))

    def _seconds(self, reset: str | None, headers: Mapping[str, str]) -> float | None:
        """Seconds from the response until `reset`, in whatever form that is."""
        if reset is None:
            return None
        seconds = duration(reset)
        if seconds is not None and seconds < _EPOCH:
            return seconds
        moment = _moment(reset) if seconds is None else _epoch(seconds)
        if moment is None:
            return None
        # Both sides of the difference are the server's: a wrong clock here does no harm.
        now = _date(headers.get("Date", ""))
        return max(0.0, moment - (self._clock() if now is None else now))


@lru_cache(maxsize=512)
def duration(text: str) -> float | None:
    """Seconds in a duration such as "1s", "6m0s", "120ms", "1h2m3.5s", or a plain number; None for anything else."""
    if len(text) > _LONGEST:
        return None
    text = text.strip()
    if text[-1:] not in _LETTERS:
        return _positive(text)
    total, at = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != at:
            return None
        total += float(part[1]) * _SECONDS[part[2]]
        at = part.end()
    return total if at == len(text) and at > 0 and math.isfinite(total) else None


def _sources(names: frozenset[str]) -> tuple[_Source, ...]:
    """The limits that a set of header names describes, those that name their unit first."""
    found: dict[tuple[bool, str, Kind], _Source] = {}
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        prefix, before, what, after = (part and part.lower() for part in match.groups(default=""))
        if before and after:
            continue
        unit = before or after
        kind = _KINDS[unit or "requests"]
        source = found.setdefault((not unit, prefix, kind), _Source(kind))
        setattr(source, what, name)
    return tuple(found[key] for key in sorted(found))


def _number(text: str | None) -> float | None:
    """A finite number; of a list such as "100, 100;w=60" the first."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        head = re.split("[,;]", text, maxsplit=1)[0]
        return _number(head) if head != text else None
    return number if math.isfinite(number) else None


def _epoch(number: float) -> float | None:
    if number < _EPOCH_MS:
        return number
    return number / 1000 if number < _NONSENSE else None


def _moment(text: str) -> float | None:
    """Seconds since 1970 of an RFC 3339 timestamp."""
    if len(text) > _LONGEST:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=16)
def _date(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):  # what that parser raises on nonsense
        return None


# --- the IETF drafts ---------------------------------------------------------------------------------------


def _read_draft(state: str | None, policy: str | None) -> Iterator[LimitReading]:
    """Both forms of the two headers.

    `RateLimit: "name";r=50;t=30` goes with `RateLimit-Policy: "name";q=100;w=60`, and the older
    `RateLimit: limit=100, remaining=50, reset=30` with `RateLimit-Policy: 100;w=60`.
    Where several policies limit the same kind, the one with the least left is told: it binds.
    """
    policies = dict(_items(policy or ""))
    states = dict(_items(state or ""))
    best: dict[Kind, LimitReading] = {}
    if "limit" in states or "remaining" in states:
        whole = {name: parameters.get("", "") for name, parameters in states.items()}
        limit, remaining = _positive(whole.get("limit")), _positive(whole.get("remaining"))
        window = next((_positive(p.get("w")) for name, p in policies.items() if _number(name) == limit), None)
        if limit or (remaining is not None and limit is None):
            best["requests"] = LimitReading(
                "requests", limit, remaining, _positive(whole.get("reset")), window
            )
    else:
        for name in states or policies:
            rule, now = policies.get(name, {}), states.get(name, {})
            kind = _kind(name, rule.get("qu", "requests"))
            limit, remaining = _positive(rule.get("q")), _positive(now.get("r"))
            if kind is None or limit == 0 or (limit is None and remaining is None):
                continue
            reading = LimitReading(kind, limit, remaining, _positive(now.get("t")), _positive(rule.get("w")))
            if kind not in best or _left(reading) < _left(best[kind]):
                best[kind] = reading
    yield from best.values()


def _left(reading: LimitReading) -> float:
    return math.inf if reading.remaining is None else reading.remaining


def _items(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The members of a structured field: name and parameters; a value of the name itself is under ""."""
    for member in text.split(","):
        head, *parameters = member.split(";")
        name, _, value = head.partition("=")
        values = {"": value.strip()}
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            values[key.strip().lower()] = value.strip().strip('"')
        yield name.strip().strip('"').lower(), values


def _kind(name: str, unit: str) -> Kind | None:
    """The kind of a policy, by its unit, or by its name where the unit says requests; None for another unit."""
    text = unit if unit != "requests" else name
    if "token" not in text:
        return "requests" if unit == "requests" else None
    if "input" in text or "prompt" in text:
        return "input_tokens"
    return "output_tokens" if "output" in text or "completion" in text else "tokens"


def _positive(text: str | None) -> float | None:
    number = _number(text)
    return number if number is not None and number >= 0 else None
