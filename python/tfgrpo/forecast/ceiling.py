"""The limit that will bind, said before the start: open files, calls in flight, requests and tokens a minute.

Nothing is guessed here: where the seconds or the tokens of a call are not known, it is said what they would decide.
"""

from __future__ import annotations

from collections.abc import Iterable

from tfgrpo.types import Limits, Struct

try:
    import resource
except ImportError:  # no such limit on Windows
    resource = None  # type: ignore[assignment]

#: Open files beside one connection a call: journal, logs, the embedded server, imports.
FILES_BESIDE = 64
UNLIMITED = 2**31

RATES = (
    "requests_per_minute",
    "tokens_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
)


class OpenFiles(Struct, frozen=True):
    """The number of files that this process may have open, that a run needs, and that the limit can be raised to."""

    permitted: int
    needed: int
    highest: int

    @property
    def enough(self) -> bool:
        """True where the run can have them all, the limit raised or not."""
        return self.highest >= self.needed

    @property
    def calls(self) -> int:
        """Calls in flight for which the files suffice."""
        return max(min(self.needed, self.highest) - FILES_BESIDE, 1)


class CallSize(Struct, frozen=True):
    """The size of a call, where it is known: seconds, and tokens in and out."""

    seconds: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None


def open_files(concurrency: int) -> OpenFiles:
    """Look at the limit of open files; nothing is changed."""
    needed = concurrency + FILES_BESIDE
    if resource is None:
        return OpenFiles(UNLIMITED, needed, UNLIMITED)
    soft, hard = (_unlimited(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    return OpenFiles(soft, needed, hard)


def raise_open_files(concurrency: int) -> OpenFiles:
    """Raise the soft limit of open files to what a run needs, as far as the hard one lets.

    Returns:
        The limits afterwards.
    """
    files = open_files(concurrency)
    if files.permitted >= files.needed:
        return files
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files.needed, files.highest), hard))
    except (OSError, ValueError):  # a sandbox may forbid even that
        return OpenFiles(files.permitted, files.needed, files.permitted)
    return open_files(concurrency)


def files_warning(files: OpenFiles, concurrency: int) -> str | None:
    """Say what to do where even the raised limit is too low."""
    if files.enough:
        return None
    return (
        f"limits.concurrency = {concurrency:,} needs {files.needed:,} open files and this system permits "
        f"{files.highest:,}: set limits.concurrency = {files.calls:,}, or raise the hard limit "
        "(ulimit -Hn as root, or LimitNOFILE= of the service)."
    )


def which_binds(limits: Limits, call: CallSize, slots: int | None = None) -> str:
    """One sentence: calls in flight, the rate they make, what the configured rates permit, which is less.

    Args:
        limits: of the provider.
        call: the size of a call, as far as it is known.
        slots: answers that an embedded model computes at once; it has no other limit.
    """
    places = limits.concurrency
    if slots is not None:
        most = f"at most {min(places, slots):,} calls at work"
        return f"{most}: the embedded model computes {slots:,} answers at once."
    said = f"at most {places:,} calls in flight"
    if call.seconds:
        said += f"; at about {_seconds(call.seconds)} a call that is {_per_second(places / call.seconds)}"
    rates = dict(_rates(limits, call))
    known = {key: rate for key, (rate, _) in rates.items() if rate is not None}
    unknown = [f"limits.{key} = {value:,}" for key, (rate, value) in rates.items() if rate is None]
    if known:
        least = min(known, key=lambda key: known[key])
        permits = f"limits.{least} = {rates[least][1]:,} permits {_per_second(known[least])}"
        if least != "requests_per_minute":
            permits += f" of about {_tokens(least, call):,.0f} tokens"
        said += f"; {permits} and {_when(places, known[least], call.seconds)}"
    elif call.seconds and not unknown:
        said += "; limits.concurrency binds, unless the provider's answers tell of a lower limit"
    elif not unknown:
        said += "; no rate is configured, so the pace follows what the provider's answers tell"
    if unknown:
        said += f"; {' and '.join(unknown)} may bind before, by the tokens of a call"
    return said + "."


def _rates(limits: Limits, call: CallSize) -> Iterable[tuple[str, tuple[float | None, int]]]:
    """Calls a second that each configured rate permits, None where that hangs on unknown tokens; and its value."""
    for key in RATES:
        value: int | None = getattr(limits, key)
        if value is None:
            continue
        tokens = _tokens(key, call)
        yield key, (None if tokens is None else value / 60 / max(tokens, 1), value)


def _tokens(key: str, call: CallSize) -> float | None:
    """The part of a rate that one call takes; None where it is not known."""
    if key == "requests_per_minute":
        return 1.0
    if key == "input_tokens_per_minute":
        return call.input_tokens
    if key == "output_tokens_per_minute":
        return call.output_tokens
    if call.input_tokens is None or call.output_tokens is None:
        return None
    return call.input_tokens + call.output_tokens


def _when(places: int, rate: float, seconds: float | None) -> str:
    """Say if a rate binds before the places do, or for how fast calls it would."""
    if seconds is None:
        return f"binds for calls of less than {_seconds(places / rate)}"
    return "binds first" if rate < places / seconds else "is not reached: limits.concurrency binds first"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def _per_second(rate: float) -> str:
    """A rate, a minute where it is less than one a second."""
    if rate < 1:
        return f"{rate * 60:.2g} calls/min"
    return f"{rate:.2g} calls/s" if rate < 10 else f"{rate:,.0f} calls/s"


def _unlimited(limit: int) -> int:
    return UNLIMITED if limit == resource.RLIM_INFINITY else limit
