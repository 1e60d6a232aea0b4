"""The run as a person watches it: a live line on a terminal, plain lines anywhere else; always on stderr.

Events that come once a rollout are only counted, and those of effects are not asked for. Drawing is done when a
`Sampled` comes, so its cost does not grow with the number of effects.
"""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tfgrpo.events import (
    Event,
    GroupFinished,
    Noted,
    PhaseFinished,
    PhaseStarted,
    RolloutFinished,
    Sampled,
    StepFinished,
    StepStarted,
    Warned,
)
from tfgrpo.observe.line import (
    PLAIN,
    TROUBLE,
    Piece,
    account_pieces,
    admission_pieces,
    busy,
    flow,
    joined,
    span,
    wait_pieces,
)
from tfgrpo.types import Ending, Usage

#: Seconds between two frames of the live line, and between two plain lines.
FRAME, QUIET = 0.5, 10.0
#: Seconds of work before the time left is guessed.
SETTLED = 5.0
PHASES = {
    "baseline": "evaluating without a library",
    "practice": "practising",
    "learned": "evaluating with the learned library",
}


class Progress:
    """A hook that shows how far a run is, how fast it goes, what holds it back, and what it costs.

    Use it as a context manager: the live line ends with the block. `sample_every` tells the engine how often, in
    seconds, it wants a `Sampled`; `wants` are the events that it shows or counts.

    Args:
        console: where to show it; a console that is no terminal gets plain lines.
        clock: seconds, for the distance between plain lines and the time left.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._terminal = console.is_terminal
        self.sample_every = FRAME if self._terminal else QUIET
        self._phase = ""
        self._step = ""
        self._started = self._last_line = clock()
        self._total = self._done = self._replayed = self._rerun = self._faulted = 0
        self._groups: Counter[tuple[int, str]] = Counter()  # by step and signal: steps may overlap
        self._usage = Usage()
        self._sampled: Sampled | None = None
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            PhaseStarted: self._phase_started,
            PhaseFinished: self._phase_finished,
            StepStarted: self._step_started,
            RolloutFinished: self._rollout_finished,
            GroupFinished: self._group_finished,
            StepFinished: self._step_finished,
            Sampled: self._sample,
            Warned: self._warned,
            Noted: self._noted,
        }
        self.wants = frozenset(self._handlers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._phase_ended()

    def __call__(self, event: Event) -> None:
        """Take one event: count it, say it in a line, or draw."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def say(self, text: str) -> None:
        """One line above the live line, or just one line; a log gets it unbroken, a terminal indented."""
        if self._terminal:
            margin = " " * (len(text) - len(text.lstrip()) + 2)
            text = textwrap.fill(text, self._console.width, subsequent_indent=margin, break_on_hyphens=False)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    # --- once a rollout, a group: count ----------------------------------------------------------------

    def _rollout_finished(self, event: RolloutFinished) -> None:
        if event.phase == self._phase:
            self._done += 1
            if event.replayed:
                self._replayed += 1
        else:
            self._rerun += 1
        if event.rollout.ending is Ending.FAULTED and not event.rollout.cut_off:
            self._faulted += 1

    def _group_finished(self, event: GroupFinished) -> None:
        self._groups[event.step, event.group.signal.value] += 1

    # --- now and then: say -------------------------------------------------------------------------------

    def _phase_started(self, event: PhaseStarted) -> None:
        self._phase_ended()
        self._phase, self._total, self._step = event.phase, event.rollouts, ""
        self._done = self._replayed = self._rerun = 0
        self._started = self._last_line = self._clock()
        title = PHASES.get(event.phase, event.phase)
        self.say(f"{title}: {event.tasks:,} tasks, {event.rollouts:,} rollouts")
        if self._terminal and self._live is None:
            # Drawn by samples only: a refreshing thread of its own would take processor time from the calls.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._draw()

    def _phase_finished(self, event: PhaseFinished) -> None:
        self._usage = event.usage
        self._phase_ended()

    def _phase_ended(self) -> None:
        """One line that stays: what the phase came to."""
        if not self._phase:
            return
        done = f"{self._done:,}" if self._done == self._total else f"{self._done:,} of {self._total:,}"
        self.say(
            f"  {done} rollouts in {span(self._clock() - self._started)}; so far {joined(self._account())}"
        )
        self._phase = ""

    def _step_started(self, event: StepStarted) -> None:
        self._step = f"step {event.step}/{event.steps}"
        self.say(f"step {event.step} of {event.steps} (epoch {event.epoch}): {event.tasks:,} tasks")

    def _step_finished(self, event: StepFinished) -> None:
        report = event.report
        mine = sorted(place for place in self._groups if place[0] == event.step)
        groups = ", ".join(f"{self._groups.pop(place)} {place[1]}" for place in mine)
        self.say(f"  groups: {groups or 'none'}")
        self.say(
            f"  operations: {len(report.added)} added, {len(report.modified)} modified, "
            f"{len(report.deleted)} deleted, {len(report.dropped)} dropped"
        )
        verdict = "" if event.accepted else "; the old library stays"
        entries = "1 entry" if event.entries == 1 else f"{event.entries:,} entries"
        self.say(f"  library: {entries}{verdict}")

    def _warned(self, event: Warned) -> None:
        self.say(f"warning: {event.message}")

    def _noted(self, event: Noted) -> None:
        self.say(event.message)

    # --- on a timer: draw --------------------------------------------------------------------------------

    def _sample(self, event: Sampled) -> None:
        self._sampled = event
        self._usage = event.usage
        if self._live is not None:
            self._draw()
        elif not self._terminal and self._phase and self._clock() - self._last_line >= 0.95 * QUIET:
            self._last_line = self._clock()
            self.say(f"  {self._plain()}")

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._frame(), refresh=True)

    def _frame(self) -> RenderableType:
        """The bar, a line for each provider that is called, and the account."""
        width = self._console.width
        bar = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None):
            bar.add_column(ratio=ratio, no_wrap=True)
        shown = ProgressBar(total=max(self._total, 1), completed=self._done)
        bar.add_row(self._phase, shown, f"{self._done:,}/{self._total:,}")
        lines: list[Text] = flow(self._head(), width)
        for name, pieces in self._providers():
            lines += flow(pieces, width, f"{name}: " if name else "")
        lines += flow(self._account(), width)
        return Group(bar, *lines)

    def _plain(self) -> str:
        head = [(f"{self._done:,}/{self._total:,} rollouts", PLAIN), *self._head()]
        parts = [f"{self._phase}: {joined(head)}"]
        parts += [f"{name}: {joined(p)}" if name else joined(p) for name, p in self._providers()]
        return "; ".join([*parts, joined(self._account())])

    def _head(self) -> list[Piece]:
        """Where in the run, and how long it will take."""
        pieces: list[Piece] = []
        if self._step:
            pieces.append((self._step, PLAIN))
        if closed := self._groups.total():
            pieces.append((f"{closed:,} {'group' if closed == 1 else 'groups'} closed", PLAIN))
        if self._rerun:
            pieces.append((f"{self._rerun:,} re-run to measure gains", PLAIN))
        if (left := self._left()) is not None:
            pieces.append((f"{span(left)} left", PLAIN))
        return pieces

    def _providers(self) -> list[tuple[str, list[Piece]]]:
        """The traffic of each admission, named where there are several, and the calls that wait elsewhere."""
        if self._sampled is None:
            return []
        shown = {name: state for name, state in self._sampled.admissions.items() if busy(state)}
        several = len(self._sampled.admissions) > 1
        found = [
            (name if several else "", admission_pieces(state, self._sampled.at))
            for name, state in shown.items()
        ]
        if waits := wait_pieces(self._sampled):
            found.append(("", waits))
        return found

    def _account(self) -> list[Piece]:
        budget = None if self._sampled is None else self._sampled.budget
        pieces = account_pieces(self._usage, budget)
        if self._faulted:
            pieces.append((f"{self._faulted:,} faulted", TROUBLE))
        return pieces

    def _left(self) -> float | None:
        """Seconds left in this phase at its pace so far; what came from the journal took no time."""
        fresh, elapsed = self._done - self._replayed, self._clock() - self._started
        if fresh <= 0 or elapsed < SETTLED or self._done >= self._total:
            return None
        return elapsed / fresh * (self._total - self._done)
