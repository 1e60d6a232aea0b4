"""The run as a person watches it: a live line on a terminal, plain lines anywhere else; always on stderr."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from tfgrpo.events import (
    CallFinished,
    Event,
    GroupFinished,
    PhaseStarted,
    RolloutFinished,
    StepFinished,
    StepStarted,
    Warned,
)
from tfgrpo.types import Ending, Usage

#: Seconds between two plain lines of one phase.
QUIET = 10.0
PHASES = {
    "baseline": "evaluating without a library",
    "practice": "practising",
    "learned": "evaluating with the learned library",
}


class Progress:
    """A hook that shows rollouts, groups, tokens, money and the time left.

    Use it as a context manager: the live line ends with the block.

    Args:
        console: where to show it; a console that is no terminal gets plain lines.
        clock: seconds, for the distance between plain lines.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._live = console.is_terminal
        self._phase = ""
        self._total = self._done = self._rerun = 0
        self._groups: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._usage = Usage()
        self._last_line = clock()
        self._bar: TaskID | None = None
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[account]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not self._live,
            expand=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case PhaseStarted():
                self._start(event)
            case StepStarted():
                self.say(f"step {event.step} of {event.steps} (epoch {event.epoch}): {event.tasks} tasks")
            case RolloutFinished():
                self._rollout(event)
            case GroupFinished():
                self._groups[event.group.signal.value] += 1
            case CallFinished():
                self._usage = event.total
                self._refresh()
            case StepFinished():
                self._step(event)
            case Warned():
                self.say(f"warning: {event.message}")

    def say(self, text: str) -> None:
        """One line above the live line, or just one line."""
        self._console.print(text, markup=False, highlight=False)

    def _start(self, event: PhaseStarted) -> None:
        self._phase, self._total, self._done = event.phase, event.rollouts, 0
        title = PHASES.get(event.phase, event.phase)
        self.say(f"{title}: {event.tasks:,} tasks, {event.rollouts:,} rollouts")
        if self._bar is not None:
            self._bars.remove_task(self._bar)
        self._bar = self._bars.add_task(event.phase, total=event.rollouts, account="")

    def _rollout(self, event: RolloutFinished) -> None:
        self._endings[event.rollout.ending.value] += 1
        if event.phase == self._phase:
            self._done += 1
        else:
            self._rerun += 1
        self._refresh()

    def _step(self, event: StepFinished) -> None:
        report = event.report
        changes = (
            f"{len(report.added)} added, {len(report.modified)} modified, {len(report.deleted)} deleted, "
            f"{len(report.dropped)} dropped"
        )
        verdict = "" if event.accepted else "; the old library stays"
        groups = ", ".join(f"{count} {signal}" for signal, count in sorted(self._groups.items()))
        self.say(f"  groups: {groups}; operations: {changes}; library: {event.entries} entries{verdict}")
        self._groups.clear()

    def _refresh(self) -> None:
        account = self._account()
        if self._live and self._bar is not None:
            self._bars.update(self._bar, completed=self._done, account=account)
        elif self._clock() - self._last_line >= QUIET:
            self._last_line = self._clock()
            self.say(f"  {self._phase}: {self._done:,}/{self._total:,} rollouts, {account}")

    def _account(self) -> str:
        usage = self._usage
        parts = [f"{_short(usage.tokens)} tokens"]
        if self._rerun:
            parts.insert(0, f"{self._rerun:,} re-run to measure gains")
        if closed := self._groups.total():
            parts.insert(0, f"{closed:,} {'group' if closed == 1 else 'groups'} of this step")
        if usage.usd:
            parts.append(f"${usage.usd:.2f}")
        if faulted := self._endings[Ending.FAULTED.value]:
            parts.append(f"{faulted} faulted")
        return ", ".join(parts)


def _short(number: int) -> str:
    """12345 as "12.3k"."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
