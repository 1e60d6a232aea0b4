"""The page of a report: one self-contained HTML text, the verdict first, everything from a model escaped."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tfgrpo.report.comparison import signed
from tfgrpo.report.result import Record, Result
from tfgrpo.report.terminal import dollars, money, share
from tfgrpo.types import DroppedOperation, Experience

_ROWS = 400  # task rows shown at most; changed tasks come first, so what is left out changed least
_LONG = 2_000  # characters shown of one answer


class TaskRow(Record, frozen=True, kw_only=True):
    """One held-out task before and after; the answers are examples, or empty."""

    task_id: str
    input: str
    truth: str | None = None
    baseline_mean: float | None = None
    learned_mean: float | None = None
    baseline_answers: tuple[str, ...] = ()
    learned_answers: tuple[str, ...] = ()

    @property
    def change(self) -> float | None:
        """Learned minus baseline, None where an arm has no grade."""
        if self.baseline_mean is None or self.learned_mean is None:
            return None
        return self.learned_mean - self.baseline_mean


class FaultRow(Record, frozen=True, kw_only=True):
    """Faults of one error class that ended an attempt for good, with the message of the first as a remedy."""

    kind: str
    error: str
    count: int
    message: str


def page(
    result: Result,
    *,
    library: Sequence[Experience] = (),
    tasks: Sequence[TaskRow] = (),
    dropped: Sequence[DroppedOperation] = (),
    faults: Sequence[FaultRow] = (),
    settings: str = "",
) -> str:
    """The whole page; the same arguments give the same text.

    Args:
        result: what the run says.
        library: the learned experiences with their lineage.
        tasks: the held-out tasks; changed ones are shown first.
        dropped: operations that were not applied, and why.
        faults: what broke for good.
        settings: the resolved configuration as TOML.
    """
    rows = sorted(tasks, key=lambda row: (-abs(row.change or 0.0), row.task_id))
    template = _environment().get_template("report.html.j2")
    return template.render(
        result=result,
        library=library,
        dropped=dropped,
        faults=faults,
        settings=settings,
        rows=rows[:_ROWS],
        more_rows=len(rows[_ROWS:]),
        better=sum((row.change or 0) > 0 for row in tasks),
        worse=sum((row.change or 0) < 0 for row in tasks),
        figures=_figures(result, tasks),
        costs=[*result.usage.by_role.items(), ("total", result.usage.total)],
    )


def _figures(result: Result, tasks: Sequence[TaskRow]) -> dict[str, Markup]:
    # matplotlib takes a second to import: only a run that writes its page pays for it.
    from tfgrpo.report import figures

    drawn: dict[str, str] = {}
    if result.difference is not None and result.interval is not None and result.tasks > 1:
        low, high = result.interval
        alt = f"Difference {signed(result.difference)}, interval {signed(low)} to {signed(high)}."
        drawn["effect"] = figures.effect(result.difference, result.interval, alt=alt)
    steps = [(step.step, step.reward) for step in result.steps if step.reward.mean is not None]
    if steps:
        alt = "Mean practice reward by step: " + ", ".join(f"{step}: {e.mean:.3f}" for step, e in steps) + "."
        drawn["curve"] = figures.learning_curve(steps, alt=alt)
    pairs = [
        (row.baseline_mean, row.learned_mean)
        for row in tasks
        if row.baseline_mean is not None and row.learned_mean is not None
    ]
    if pairs:
        up, down = sum(after > before for before, after in pairs), sum(b > a for b, a in pairs)
        alt = f"Of {len(pairs)} tasks {up} do better with the library, {down} worse."
        drawn["pairs"] = figures.before_after(pairs, alt=alt)
    # Our own SVG, made of numbers; its only text from outside, the label, is escaped where it is made.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        mean=lambda value: "–" if value is None else f"{value:.3f}",
        signed=lambda value: "–" if value is None else signed(value),
        count=lambda value: f"{value:,}",
        percent=lambda share: f"{100 * share:g} %",
        cached=share,
        money=money,
        dollars=lambda usd: "–" if usd is None else dollars(usd),
        moment=lambda value: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value)),
        span=_span,
        pretty=_pretty,
    )
    return environment


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _pretty(text: str) -> str:
    """An answer for reading: a JSON object or list indented, long text cut with a note."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= _LONG else f"{text[:_LONG]}\n… {len(text) - _LONG:,} more characters"
