"""Progress on a terminal and elsewhere: it names what binds, draws by samples only, and fits its width."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from rich.console import Console

from tfgrpo.events import (
    AdmissionState,
    EffectFinished,
    EffectStarted,
    Event,
    GroupFinished,
    Hooks,
    Noted,
    PhaseStarted,
    RolloutFinished,
    Sampled,
    StepFinished,
    StepStarted,
    Warned,
)
from tfgrpo.observe import Progress
from tfgrpo.observe.line import rate, short, span
from tfgrpo.types import (
    ApplyReport,
    EffectKind,
    Ending,
    Group,
    PriorRef,
    Role,
    Rollout,
    Signal,
    Trajectory,
    Usage,
)

BUSY = AdmissionState(64, 1_132, None, "requests", 64, 20.0, 19.84, 3)
USAGE = Usage(3_000, 12_000_000, 9_000_000, 345_678, 1.5)
CONTROL = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


def rollout(
    phase: str, ending: Ending = Ending.COMPLETED, *, replayed: bool = False, number: int = 0
) -> RolloutFinished:
    ended = Rollout("t", number, PriorRef(0, ""), Trajectory(()), ending)
    return RolloutFinished(key=f"{phase}/task=t/try=0000", phase=phase, rollout=ended, replayed=replayed)


def phase(name: str, tasks: int, rollouts: int) -> PhaseStarted:
    return PhaseStarted(key=name, phase=name, tasks=tasks, rollouts=rollouts)


def effect(total: Usage) -> EffectFinished:
    return EffectFinished(
        key="practice/task=t/try=0000//model/a/0",
        kind=EffectKind.MODEL,
        role=Role.ROLLOUT,
        attempt=0,
        queued=0.0,
        seconds=1.0,
        usage=Usage(),
        total=total,
    )


STEP = StepStarted(key="practice/step=0002", step=2, steps=6, epoch=1, tasks=20)
GROUP = GroupFinished(key="practice/step=0001/task=t", step=1, group=Group("t", (), Signal.MIXED))


def sampled(waits: dict[str, int] | None = None, **states: AdmissionState) -> Sampled:
    return Sampled(100.0, states or {"rollout": BUSY}, USAGE, 0.3, waits or {})


def shown(
    events: Sequence[Event], seconds_apart: float = 0.0, *, terminal: bool = False, width: int = 100
) -> str:
    output = io.StringIO()
    now = 0.0

    def clock() -> float:
        return now

    console = Console(file=output, force_terminal=terminal, width=width, color_system=None)
    with Progress(console, clock) as progress:
        for event in events:
            now += seconds_apart
            progress(event)
    return CONTROL.sub("", output.getvalue())


def test_nothing_is_drawn_but_by_samples() -> None:
    start = phase("practice", 50, 1_000)
    calls: list[Event] = [rollout("practice"), effect(Usage(1, 9, 0, 9))] * 300
    few = shown([start], terminal=True)
    assert len(shown([start, *calls], terminal=True)) <= len(few) + 40
    assert shown([start, sampled()], terminal=True).count("calls/s") == 2  # and once on leaving
    assert shown([start, *calls], 1.0).count("\n") == 2  # the start and the end of the phase


def test_plain_lines_are_spaced_in_time() -> None:
    events: list[Event] = [phase("practice", 50, 100), *[sampled()] * 100]
    assert shown(events, 0.01).count("calls/s") == 0
    assert shown(events, 1.0).count("calls/s") == 10


def test_a_plain_line_says_everything_and_is_not_broken() -> None:
    events: list[Event] = [
        phase("practice", 50, 100),
        STEP,
        *[rollout("practice")] * 20,
        rollout("practice", Ending.FAULTED),
        rollout("probe"),
        GROUP,
        sampled({"budget": 4}),
    ]
    lines = shown(events, 1.0, width=40).splitlines()
    assert (
        "  practice: 21/100 rollouts, step 2/6, 1 group closed, 1 re-run to measure gains, 94 s left; "
        "19.8 of 20.0 calls/s, 64 of 64 in flight, 1,132 wait for requests/min, 3 × 429; "
        "4 wait for the budget; "
        "12.3M tokens, 75% of input cached, $1.50, 30% of the budget, 1 faulted"
    ) in lines
    assert lines[-1].startswith("  21 of 100 rollouts in 25 s; so far 12.3M tokens")


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_the_live_lines_fit_their_width_and_lose_nothing(width: int) -> None:
    both = {"rollout": BUSY, "distiller": AdmissionState(5, 0, achieved=2.0)}
    events: list[Event] = [
        phase("practice", 50, 100),
        STEP,
        rollout("practice"),
        Sampled(100.0, both, USAGE, 0.3, {"retry": 7, "disk full": 2}),
    ]
    text = shown(events, 6.0, terminal=True, width=width)
    assert all(len(line) <= width for line in text.replace("\r", "\n").splitlines())
    said = " ".join(text.split())
    for piece in ("1/100", "step 2/6", "rollout: 19.8 of 20.0 calls/s", "64 of 64 in flight"):
        assert piece in said
    for piece in ("1,132 wait for requests/min", "distiller: 2.0 calls/s", "5 in flight"):
        assert piece in said
    for piece in ("7 back off before a retry", "2 wait: the disk is full", "$1.50", "30% of the budget"):
        assert piece in said


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("provider cut", "9 wait 4 s: the provider asked for a pause"),
        ("concurrency", "9 wait for a place"),
        ("requests", "9 wait for requests/min"),
        ("tokens", "9 wait for tokens/min"),
        ("input tokens", "9 wait for input tokens/min"),
        ("output tokens", "9 wait for output tokens/min"),
        ("ramp", "9 wait: still speeding up"),
        ("hidden limit", "9 wait for an untold limit"),
        ("something new", "9 wait for something new"),
    ],
)
def test_every_binding_limit_is_named(binding: str, words: str) -> None:
    state = AdmissionState(1, 9, 104.0, binding)
    assert f"{words}" in shown([phase("baseline", 1, 2), sampled(rollout=state)], 10.0)
    idle = AdmissionState(1, 0, None, binding, achieved=1.0)
    assert "wait" not in shown([phase("baseline", 1, 2), sampled(rollout=idle)], 10.0)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("budget", "2 wait for the budget"),
        ("disk full", "2 wait: the disk is full"),
        ("provider down", "2 wait: the provider is down"),
        ("retry", "2 back off before a retry"),
        ("retry: ConnectError", "2 back off: no connection"),
        ("retry: OverloadedError", "2 back off: the server is overloaded"),
        ("retry: NewError", "2 back off: NewError"),
        ("the moon", "2 wait for the moon"),
    ],
)
def test_every_other_reason_to_wait_is_named(reason: str, words: str) -> None:
    assert words in shown([phase("baseline", 1, 2), sampled({reason: 2})], 10.0)


def test_an_idle_provider_is_left_out_and_one_alone_is_not_named() -> None:
    start = phase("baseline", 1, 2)
    text = shown([start, sampled(rollout=BUSY, judge=AdmissionState(0, 0))], 10.0)
    assert "rollout: 19.8" in text
    assert "judge" not in text
    assert "rollout:" not in shown([start, sampled(rollout=BUSY)], 10.0)


def test_time_left_counts_what_was_done_now() -> None:
    events: list[Event] = [phase("practice", 50, 100), *[rollout("practice", replayed=True)] * 80]
    assert "left" not in shown([*events, sampled()], 1.0)
    assert "3 min left" in shown([*events, *[rollout("practice")] * 10, sampled()], 2.0)  # 182 s for 10


def test_steps_warnings_and_notes_are_told() -> None:
    events: list[Event] = [
        GROUP,
        StepFinished(
            key="practice/step=0001",
            step=1,
            report=ApplyReport(added=("E1",)),
            accepted=False,
            version=0,
            entries=0,
        ),
        Warned("80% of the budget is spent."),
        Noted("at most 64 calls in flight"),
    ]
    assert shown(events).splitlines() == [
        "  groups: 1 mixed",
        "  operations: 1 added, 0 modified, 0 deleted, 0 dropped",
        "  library: 0 entries; the old library stays",
        "warning: 80% of the budget is spent.",
        "at most 64 calls in flight",
    ]


def test_hooks_ask_for_samples_by_an_attribute() -> None:
    def plain(_event: Event) -> None:
        pass

    assert Hooks([plain]).sample_every is None
    terminal = Progress(Console(file=io.StringIO(), force_terminal=True))
    assert Hooks([plain, Progress(Console(file=io.StringIO()))]).sample_every == 10.0
    assert Hooks([Progress(Console(file=io.StringIO())), terminal]).sample_every == 0.5


def test_only_what_is_shown_is_asked_for() -> None:
    hooks = Hooks([Progress(Console(file=io.StringIO()))])
    assert hooks.wants(RolloutFinished)
    # They come once a call, and would have to be made for each: samples tell what a run costs.
    assert not hooks.wants(EffectFinished)
    assert not hooks.wants(EffectStarted)


def test_numbers_read_well() -> None:
    assert [short(n) for n in (12, 1_234, 12_345_678, 3e9)] == ["12", "1.2k", "12.3M", "3.0G"]
    assert [rate(n) for n in (0.04, 9.96, 99.4, 2_000.0)] == ["0.0", "10.0", "99.4", "2,000"]
    assert [span(n) for n in (3.2, 94, 125, 3_590, 12_000)] == [
        *("3 s", "94 s", "2 min", "1 h 0 min", "3 h 20 min"),
    ]
