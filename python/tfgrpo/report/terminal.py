"""The summary of a result on a terminal: the verdict in a sentence, then one small table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfgrpo.report.comparison import Comparison
from tfgrpo.report.result import ArmResult, Cost, Result

_COLOURS = {"better": "green", "worse": "red", "not distinguishable": "yellow", None: "default"}


def summary(result: Result, console: Console) -> None:
    """Print a result; reads well from 60 columns up."""
    console.print(Text(result.sentence, style=f"bold {_COLOURS[result.verdict]}"))
    arms = Table(box=None, pad_edge=False, header_style="dim")
    arms.add_column("")
    for heading in ("mean", f"{100 * result.confidence:g} % interval", "pass@k", "graded", "faulted"):
        arms.add_column(heading, justify="right")
    names = ("baseline", "learned") if result.baseline and result.learned else ("evaluated", "evaluated")
    for name, arm in zip(names, (result.baseline, result.learned), strict=True):
        if arm is not None:
            arms.add_row(name, *_cells(arm))
    console.print(arms)
    for line in _facts(result):
        console.print(Text(line))


def comparison_lines(comparison: Comparison, baseline: str, learned: str) -> str:
    """A comparison of two runs as plain lines, for `tfgrpo compare`: the first run is the baseline."""
    lines = [
        comparison.sentence,
        f"from {_number(comparison.baseline_mean)}  {baseline}",
        f"to   {_number(comparison.learned_mean)}  {learned}",
        f"interval: {comparison.interval_method}; test: {comparison.test}",
    ]
    if comparison.unpaired:
        lines.append(f"tasks left out, not graded in both runs: {len(comparison.unpaired)}")
    return "\n".join(lines)


def money(cost: Cost) -> str:
    """US dollars as text: cents for large sums, more places for small ones."""
    return "no price set" if cost.usd is None else dollars(cost.usd)


def dollars(usd: float) -> str:
    """A sum of US dollars."""
    return f"${usd:,.2f}" if abs(usd) >= 1 or usd == 0 else f"${usd:.4f}"


def share(cost: Cost) -> str:
    """The cached share of the input tokens as text."""
    return "–" if cost.cached_share is None else f"{cost.cached_share:.0%}"


def _saved(cost: Cost) -> str:
    return f"; caching saved {dollars(cost.saved_usd)}" if cost.saved_usd else ""


def _cells(arm: ArmResult) -> tuple[str, ...]:
    low, high = arm.interval
    return (
        _number(arm.mean),
        f"{low:.3f} to {high:.3f}",
        _number(arm.pass_at_k),
        str(arm.graded),
        str(arm.faulted),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _facts(result: Result) -> list[str]:
    total, library, groups = result.usage.total, result.library, result.groups
    size = f"{library.size} experiences, {library.in_prior} in the prior"
    lines = [f"library: v{library.version}, {size}, {library.tokens} tokens"]
    if result.kind == "practice":
        lines.append(
            f"groups: {groups.mixed} mixed, {groups.uniform} uniform, {groups.undergraded} undergraded"
        )
    cached = f", {share(total)} of them cached" if total.cached_tokens else ""
    lines += [
        f"tokens: {total.input_tokens:,} in{cached}; {total.output_tokens:,} out",
        f"calls: {total.calls:,}; cost: {money(total)}{_saved(total)}",
    ]
    if result.faults:
        counts = ", ".join(f"{count} {kind}" for kind, count in result.faults.items())
        lines.append(f"faults, never counted as rewards: {counts}")
    if result.unpaired:
        lines.append(f"tasks left out for want of a grade: {len(result.unpaired)}")
    return lines
