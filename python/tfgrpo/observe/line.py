"""The pieces of text of the live line: the rate and what holds it back, tokens, money. Draws nothing."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tfgrpo.events import AdmissionState, Sampled
from tfgrpo.types import Usage

#: One piece: its text and its style. Pieces are never broken.
Piece = tuple[str, str]

PLAIN, BINDS, TROUBLE = "", "yellow", "bold red"

#: What the head of a queue waits for, in words.
BINDING = {
    "concurrency": "wait for a place",
    "requests": "wait for requests/min",
    "tokens": "wait for tokens/min",
    "input tokens": "wait for input tokens/min",
    "output tokens": "wait for output tokens/min",
    "ramp": "wait: still speeding up",
    "hidden limit": "wait for an untold limit",
    "none": "wait",
}
#: The same for what is no admission's business.
WAITS = {
    "budget": "wait for the budget",
    "retry": "back off before a retry",
    "retry: ConnectError": "back off: no connection",
    "retry: ConnectionLostError": "back off: the connection broke",
    "retry: ModelTimeoutError": "back off: no answer in time",
    "retry: ServerError": "back off: the server failed",
    "retry: OverloadedError": "back off: the server is overloaded",
    "retry: MalformedReplyError": "back off: an unusable reply",
    "provider down": "wait: the provider is down",
    "disk full": "wait: the disk is full",
}


def admission_pieces(state: AdmissionState, at: float) -> list[Piece]:
    """Achieved and permitted rate, calls in flight, and how many wait for what."""
    achieved = rate(state.achieved)
    if state.permitted is not None:
        achieved += f" of {rate(state.permitted)}"
    flying = f"{state.in_flight:,}"
    if state.places is not None:
        flying += f" of {state.places:,}"
    pieces = [(f"{achieved} calls/s", PLAIN), (f"{flying} in flight", PLAIN)]
    if state.waiting:
        pieces.append((f"{state.waiting:,} {_why(state, at)}", BINDS))
    if state.limited:
        pieces.append((f"{state.limited:,} × 429", PLAIN))
    return pieces


def wait_pieces(sampled: Sampled) -> list[Piece]:
    """The calls that wait for something else, counted by reason."""
    pieces = []
    for reason, count in sampled.waits.items():
        kind = reason.removeprefix("retry: ")
        other = f"back off: {kind}" if kind != reason else f"wait for {reason}"
        style = TROUBLE if reason in ("disk full", "provider down") else BINDS
        pieces.append((f"{count:,} {WAITS.get(reason, other)}", style))
    return pieces


def account_pieces(usage: Usage, budget: float | None) -> list[Piece]:
    """Tokens, how many of them were cached, money, and the share of the budget."""
    pieces = [(f"{short(usage.tokens)} tokens", PLAIN)]
    if usage.cached_tokens:
        pieces.append((f"{usage.cached_tokens / max(usage.input_tokens, 1):.0%} of input cached", PLAIN))
    if usage.usd:
        pieces.append((f"${usage.usd:.2f}", PLAIN))
    if budget is not None:
        pieces.append((f"{budget:.0%} of the budget", BINDS if budget >= 0.8 else PLAIN))
    return pieces


def busy(state: AdmissionState) -> bool:
    """Tell whether an admission has anything to show."""
    return bool(state.in_flight or state.waiting or state.achieved)


def flow(pieces: Iterable[Piece], width: int, head: str = "") -> list[Text]:
    """Pieces as lines of at most `width` columns, broken only between pieces; later lines are indented."""
    lines = [Text(head)]
    empty = True
    for text, style in pieces:
        gap = "" if empty else " · "
        if not empty and lines[-1].cell_len + len(gap) + len(text) > width:
            lines.append(Text("  "))
            gap = ""
        lines[-1].append(gap, "dim").append(text, style)
        empty = False
    return [] if empty and not head else lines


def joined(pieces: Iterable[Piece]) -> str:
    """Pieces in one plain line."""
    return ", ".join(text for text, _ in pieces)


def rate(per_second: float) -> str:
    """Calls a second: a decimal where it matters."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def short(number: float) -> str:
    """12345 as "12.3k"."""
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def span(seconds: float) -> str:
    """Seconds as a person says them: two digits of them, more or less."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _why(state: AdmissionState, at: float) -> str:
    if state.binding in ("provider cut", "paused"):
        left = "" if state.paused_until is None else f" {max(state.paused_until - at, 0):.0f} s"
        return f"wait{left}: the provider asked for a pause"
    return BINDING.get(state.binding, f"wait for {state.binding}")
