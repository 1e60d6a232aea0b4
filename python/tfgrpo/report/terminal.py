"""The summary of a result on a terminal: the verdict in a sentence, then one small table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfgrpo.keys import Key
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
    for name, arm in result.arms.items():
        arms.add_row(Text(arm_label(result, name)), *_cells(arm))
    console.print(arms)
    for comparison in result.comparisons[:-1]:  # the last one is the sentence above
        console.print(Text(f"{comparison.arm} against {comparison.against}: {comparison.sentence}"))
    for line in _facts(result):
        console.print(Text(line))


def comparison_lines(comparison: Comparison, before: str, after: str) -> str:
    """A comparison of two runs as plain lines, for `tfgrpo compare`; the arguments name the runs."""
    lines = [
        comparison.sentence,
        f"from {_number(comparison.before_mean)}  {before}",
        f"to   {_number(comparison.after_mean)}  {after}",
        f"interval: {comparison.interval_method}; test: {comparison.test}",
    ]
    if comparison.unpaired:
        lines.append(f"tasks left out, not graded in both runs: {len(comparison.unpaired)}")
    return "\n".join(lines)


def arm_label(result: Result, name: str) -> str:
    """The name of an arm for people; one that stands alone is what was evaluated."""
    return name if len(result.arms) > 1 else "evaluated"


def source_text(source: str) -> str:
    """The group that an experience comes from, for people: "step 3, task t17"; text that is no key stays as it is."""
    try:
        key = Key.parse(source)
    except ValueError:
        return source
    parts = [] if key.phase == "practice" else [key.phase]
    parts += [f"step {key.step}"] if key.step is not None else []
    parts += [key.variant] if key.variant else []
    parts += [f"task {key.task}"] if key.task is not None else []
    parts += [f"attempt {key.index}"] if key.index is not None else []
    parts += key.inside
    return ", ".join(parts) or source


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
