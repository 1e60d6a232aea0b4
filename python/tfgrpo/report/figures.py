"""The report's figures as inline SVG: deterministic bytes, colours from the page's style sheet."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfgrpo.report.comparison import Estimate

#: Drawn in these colours, which are then replaced by the page's own, so that figures follow light and dark.
_INK, _SOFT, _LINE, _ACCENT, _GAIN, _LOSS = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {
    _INK: "--ink",
    _SOFT: "--soft",
    _LINE: "--line",
    _ACCENT: "--accent",
    _GAIN: "--gain",
    _LOSS: "--loss",
}
_NAME = 24  # characters of an arm's name at most
_SIZE = (5.0, 3.4)  # inches: the text then stays readable on a phone and on a desk


class Effect(NamedTuple):
    """The difference of one arm to the first, with its interval."""

    arm: str
    difference: float
    interval: tuple[float, float]


def effect(effects: Sequence[Effect], *, against: str, alt: str) -> str:
    """The differences with their intervals on one axis, 0 marked, one below the other; at least one."""
    several = len(effects) > 1
    figure = Figure(figsize=(5.0, 0.55 + 0.4 * len(effects)))
    axes = figure.add_subplot()
    reach = max(0.02, *(abs(end) for one in effects for end in one.interval)) * 1.15
    axes.axvline(0, color=_SOFT, linewidth=1)
    for row, (_, difference, (low, high)) in enumerate(effects):
        colour = _GAIN if low > 0 else _LOSS if high < 0 else _ACCENT
        axes.plot([low, high], [row, row], color=colour, linewidth=4, solid_capstyle="round")
        axes.plot([difference], [row], "o", color=colour, markersize=11)
    axes.set(xlim=(-reach, reach), ylim=(len(effects) - 0.4, -0.6), yticks=[])
    if several:
        axes.set_yticks(range(len(effects)), [_short(one.arm) for one in effects], parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.2f}".replace("-", "−") if value else "0")
    minuend = "arm" if several else _short(effects[0].arm)
    _style(axes, f"difference in mean reward, {minuend} − {_short(against)}", "")
    axes.spines["left"].set_visible(False)
    return _svg(figure, "effect", alt)


def learning_curve(steps: Sequence[tuple[int, Estimate]], *, alt: str) -> str:
    """Mean practice reward by step, each with its interval; at least one step has a mean."""
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    known = [(step, e.mean, e.low, e.high) for step, e in steps if e.mean is not None]
    xs, means, lows, highs = (list(column) for column in zip(*known, strict=True))
    axes.fill_between(xs, lows, highs, color=_ACCENT, alpha=0.14, linewidth=0)
    axes.vlines(xs, lows, highs, color=_ACCENT, linewidth=1.4, alpha=0.6)
    axes.plot(xs, means, "o-", color=_ACCENT, linewidth=2, markersize=6)
    axes.set(xlim=(min(xs) - 0.5, max(xs) + 0.5), ylim=(0, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    _style(axes, "step", "mean reward")
    return _svg(figure, "curve", alt)


def before_after(
    pairs: Sequence[tuple[float, float]],
    *,
    before: str = "baseline",
    after: str = "learned",
    number: int = 0,
    alt: str,
) -> str:
    """Each task at (mean before, mean after), arms by these names; the area of a disc is its number of tasks.

    Figures of one page have different numbers.
    """
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    counts = Counter((round(old, 3), round(new, 3)) for old, new in pairs)
    largest = max(counts.values())
    for (old, new), count in sorted(counts.items()):
        colour = _GAIN if new > old else _LOSS if new < old else _SOFT
        area = 560 * count / max(largest, 8)
        axes.scatter([old], [new], s=[area], color=colour, alpha=0.65, linewidths=0, zorder=2)
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.24, 1.24), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    corner: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 11}
    axes.text(0.02, 0.98, "above the line: better", color=_GAIN, ha="left", va="top", **corner)
    axes.text(0.99, 0.03, "below: worse", color=_LOSS, ha="right", va="bottom", **corner)
    _style(axes, f"{_short(before)}: mean reward of a task", _short(after))
    return _svg(figure, f"pairs-{number}", alt)


def _style(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, color=_SOFT, fontsize=11, parse_math=False)
    axes.set_ylabel(y_label, color=_SOFT, fontsize=11, parse_math=False)
    axes.tick_params(colors=_INK, labelsize=11, length=0, pad=6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_LINE)


def _short(name: str) -> str:
    """A name that leaves room for the figure."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _svg(figure: Figure, salt: str, alt: str) -> str:
    """The figure as an `<svg>` element: accessible, scalable, its ids distinct from every other figure's."""
    figure.set_layout_engine("constrained")
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": f"tfgrpo-{salt}", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    text = out.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    body = re.sub(r'font-family: [^;"]*', "font-family: var(--sans)", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    width, height = (round(inches * 72, 1) for inches in figure.get_size_inches())
    label = escape(alt, quote=True)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{body}</svg>'
