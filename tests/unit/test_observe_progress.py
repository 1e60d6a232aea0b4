"""Progress on a terminal and elsewhere: plain lines are few, and the numbers are those of the events."""

from __future__ import annotations

import io

from rich.console import Console

from tfgrpo.events import (
    CallFinished,
    Event,
    GroupFinished,
    PhaseStarted,
    RolloutFinished,
    StepFinished,
    Warned,
)
from tfgrpo.observe import Progress
from tfgrpo.types import ApplyReport, Ending, Group, PriorRef, Rollout, Signal, Trajectory, Usage


def rollout(phase: str, ending: Ending = Ending.COMPLETED) -> RolloutFinished:
    return RolloutFinished(phase, Rollout("t", 0, PriorRef(0, ""), Trajectory(()), ending), replayed=False)


def shown(events: list[Event], seconds_apart: float, *, terminal: bool = False, width: int = 100) -> str:
    output = io.StringIO()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds_apart
        return now

    console = Console(file=output, force_terminal=terminal, width=width, color_system=None)
    with Progress(console, clock) as progress:
        for event in events:
            progress(event)
    return output.getvalue()


def test_plain_lines_are_spaced_in_time() -> None:
    events: list[Event] = [PhaseStarted("practice", 50, 100), *[rollout("practice")] * 100]
    assert shown(events, 0.01).count("\n") == 1
    assert 5 < shown(events, 1.0).count("\n") < 30


def test_the_account_names_tokens_money_faults_and_re_runs() -> None:
    events: list[Event] = [
        PhaseStarted("practice", 1, 2),
        rollout("practice", Ending.FAULTED),
        rollout("probe"),
        CallFinished("k", Usage(), Usage(3, 12_000, 0, 345, 1.5)),
    ]
    text = shown(events, 60.0)
    for part in ("1/2 rollouts", "12.3k tokens", "$1.50", "1 faulted", "1 re-run"):
        assert part in text


def test_steps_and_warnings_are_told() -> None:
    events: list[Event] = [
        GroupFinished(1, Group("t", (), Signal.MIXED)),
        StepFinished(1, ApplyReport(added=("E1",)), accepted=False, version=0, entries=0),
        Warned("80% of the budget is spent."),
    ]
    text = " ".join(shown(events, 0.0).split())
    assert "1 mixed" in text
    assert "the old library stays" in text
    assert "warning: 80%" in text


def test_a_narrow_terminal_is_no_trouble() -> None:
    events: list[Event] = [PhaseStarted("baseline", 2, 4), rollout("baseline"), rollout("baseline")]
    text = shown(events, 1.0, terminal=True, width=40)
    assert "evaluating without a library" in text
    assert "2/4" in text
