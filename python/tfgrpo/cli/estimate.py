"""An estimate as a person reads it, on stdout: the likely course by phase, then the low and the high end."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfgrpo.forecast.estimate import Estimate, Line
from tfgrpo.forecast.ranges import Range
from tfgrpo.observe.line import short, span

HEADINGS = ("calls", "input", "cached", "output", "US $")


def show(estimate: Estimate, console: Console) -> None:
    """Print an estimate; reads well from 60 columns up."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    table.add_column("in tokens", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    total = estimate.total
    places = 2 if total.usd is None or total.usd.middle >= 1 else 4
    role = ""
    for line in estimate.lines:
        if line.role != role:
            role = line.role
            table.add_row(Text(role, style="dim"))
        table.add_row(f"  {line.phase}", *_cells(line, "middle", places))
    for name, end in (("likely", "middle"), ("low", "low"), ("high", "high")):
        style = "bold" if end == "middle" else ""
        table.add_row(name, *_cells(total, end, places), style=style)
    console.print(table)
    for text in _facts(estimate):
        _paragraph(console, text)
    for text in estimate.warnings:
        _paragraph(console, f"warning: {text}", "yellow")
    for text in estimate.assumptions:
        _paragraph(console, text, "dim")


def _cells(line: Line, end: str, places: int) -> tuple[str, ...]:
    numbers = (line.calls, line.input_tokens, line.cached_tokens, line.output_tokens)
    return (*(_number(number, end) for number in numbers), _money(line.usd, end, places))


def _number(number: Range | None, end: str) -> str:
    if number is None:
        return "–"
    value: float = getattr(number, end)
    return f"{value:,.0f}" if value < 100_000 else short(value)


def _money(usd: Range | None, end: str, places: int) -> str:
    if usd is None:
        return "–"
    value: float = getattr(usd, end)
    return short(value) if value >= 1_000_000 else f"{value:,.{0 if value >= 10_000 else places}f}"


def _facts(estimate: Estimate) -> Iterator[str]:
    if estimate.least_seconds is None:
        yield "time: no limit is configured that would tell the least; --from RUN_DIR knows what a call takes."
    else:
        least = estimate.least_seconds
        binds = max(estimate.floors, key=lambda floor: floor.seconds.middle)
        yield (
            f"time: at least {span(least.middle)} ({span(least.low)} to {span(least.high)}): "
            f"{binds.limit} = {binds.value:,} binds."
        )
    if estimate.total.calls is None:
        counts = ", ".join(
            f"{line.phase} {line.attempts.middle:,.0f}" for line in estimate.lines if line.calls is None
        )
        yield f"attempts, each of an unknown number of calls: {counts}."
    elif estimate.total.usd is None:
        yield "money: a model has no [model.price], so its dollars are not known."


def _paragraph(console: Console, text: str, style: str = "") -> None:
    width = min(console.width, 100)
    for line in textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False):
        console.print(Text(line, style=style), soft_wrap=True)
