"""The page of a report: one self-contained HTML text, the verdict first, everything from a model escaped."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tfgrpo.report.comparison import signed
from tfgrpo.report.reading import task_ids
from tfgrpo.report.records import RunRecords
from tfgrpo.report.result import Result
from tfgrpo.report.terminal import arm_label, dollars, money, share, source_text

_LONG = 2_000  # characters shown of one answer


class Pairs(NamedTuple):
    """The tasks under the first arm and another one: a figure, and how many did better and worse."""

    figure: Markup
    arm: str
    better: int
    worse: int


def render(result: Result, records: RunRecords) -> str:
    """The page of a finished run; the same arguments give the same text."""
    dropped = sum(step.operations.dropped for step in result.steps)
    template = _environment().get_template("report.html.j2")
    return template.render(
        result=result,
        labels={name: arm_label(result, name) for name in result.arms},
        library=records.library.entries,
        dropped=records.dropped,
        more_dropped=max(0, dropped - len(records.dropped)),
        faults=records.faults,
        failures=sorted(records.failures.items(), key=lambda item: (-item[1], item[0])),
        settings=records.terms.settings,
        rows=records.rows,
        more_rows=len(task_ids(records.arms)) - len(records.rows),
        figures=_figures(result),
        pairs=_pairs(records),
        costs=[*result.usage.by_role.items(), ("total", result.usage.total)],
    )


def _figures(result: Result) -> dict[str, Markup]:
    # matplotlib takes a second to import: only a run that writes its page pays for it.
    from tfgrpo.report import figures

    drawn: dict[str, str] = {}
    effects = [
        figures.Effect(one.arm, one.difference, one.interval)
        for one in result.comparisons
        if one.difference is not None and one.tasks > 1
    ]
    if effects:
        alt = "; ".join(
            (f"{arm}: difference " if len(effects) > 1 else "Difference ")
            + f"{signed(difference)}, interval {signed(low)} to {signed(high)}"
            for arm, difference, (low, high) in effects
        )
        drawn["effect"] = figures.effect(effects, against=result.comparisons[0].against, alt=f"{alt}.")
    steps = [(step.step, step.reward) for step in result.steps if step.reward.mean is not None]
    if steps:
        alt = "Mean practice reward by step: " + ", ".join(f"{step}: {e.mean:.3f}" for step, e in steps) + "."
        drawn["curve"] = figures.learning_curve(steps, alt=alt)
    # Our own SVG, made of numbers; names and labels in it are escaped where it is made.
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _pairs(records: RunRecords) -> list[Pairs]:
    """A figure of all tasks for each arm after the first."""
    from tfgrpo.report import figures

    (first, baseline), *others = records.arms.items()
    found: list[Pairs] = []
    for number, (name, arm) in enumerate(others):
        both = ((baseline.mean(task), arm.mean(task)) for task in arm.rewards)
        pairs = [(old, new) for old, new in both if old is not None and new is not None]
        if not pairs:
            continue
        better, worse = sum(new > old for old, new in pairs), sum(new < old for old, new in pairs)
        alt = f"Of {len(pairs)} tasks {better} do better under {name} than under {first}, {worse} worse."
        svg = figures.before_after(pairs, before=first, after=name, number=number, alt=alt)
        found.append(Pairs(Markup(svg), name, better, worse))  # noqa: S704
    return found


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
        p_value=lambda value: f"{value:.3f}" if value >= 0.0005 else "< 0.001",
        count=lambda value: f"{value:,}",
        percent=lambda share: f"{100 * share:g} %",
        cached=share,
        money=money,
        dollars=lambda usd: "–" if usd is None else dollars(usd),
        moment=lambda value: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value)),
        sentence=lambda text: text[:1].upper() + text[1:],
        source=source_text,
        sources=lambda sources: "; ".join(map(source_text, sources)),
        zip=zip,
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
