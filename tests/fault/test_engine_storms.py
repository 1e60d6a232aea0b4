"""Storms over HTTP: refusals, resets, spoilt bodies and nonsense usage; the run ends, and ends the same.

Server and engine share a virtual clock, so that hours of waiting take none. Where every fault heals before a call is
given up, the library is that of a run without faults; where calls are given up, faults are data and are counted.
"""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.world import make_config

import tfgrpo
from tfgrpo.errors import RunStoppedError
from tfgrpo.events import EffectFinished, Event
from tfgrpo.journal import JournalReader
from tfgrpo.testing import FaultPlan, FaultType, LoopbackServer, VirtualClock
from tfgrpo.testing.faults import Call
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import EffectStatus, Ending, ModelRequest, Rollout

SCRIPT = practice_script()
SIZE: dict[str, Any] = {"practice": 4, "held_out": 3, "evaluation__samples": 1, "practice__batch_size": 2}


@pytest.fixture(autouse=True)
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfgrpo.report.html.render", lambda *_: "<!doctype html>")


#: How many exchanges failed, by their error, for each run directory: one exchange has the effects of several members.
BROKEN: dict[Path, Counter[str]] = {}


def weather(
    folder: Path, faults: FaultPlan, script: Any = SCRIPT, **overrides: Any
) -> tuple[Any, LoopbackServer]:
    """A practice run in this weather; a run that was stopped goes on when the sky is clear. Run and server."""
    folder.mkdir(exist_ok=True)
    server = LoopbackServer(script, faults=faults)
    told = BROKEN[folder / "run"] = Counter()

    def listen(event: Event) -> None:
        if isinstance(event, EffectFinished) and event.fault is not None:
            told[event.fault.error] += 1

    async def main() -> tfgrpo.Run:
        async with server:
            config = make_config(folder, **(SIZE | {"model__base_url": server.base_url} | overrides))
            try:
                return await tfgrpo.practice(config, run_dir=folder / "run", hooks=[listen])
            except RunStoppedError:
                server._faults = FaultPlan()
                return await tfgrpo.resume(folder / "run", hooks=[listen])

    return VirtualClock(grace=0.003).run(main), server


def audit(directory: Path, *, stopped: bool = False) -> dict[str, int]:
    """Every planned rollout has one record, a fault is no reward, no call is left open unless a stop cut it off.

    Returns:
        How many exchanges failed, by their error.
    """
    with JournalReader(directory / "journal.db") as reader:
        rollouts = reader.records("rollout", Rollout)
        calls = list(reader.calls())
        faults = reader.faults_by_kind()
        assert stopped or reader.open_intents() == 0
    for phase, planned in (("baseline", 3), ("practice", 12), ("learned", 3)):
        assert len([key for key in rollouts if key.phase == phase]) >= planned
    for rollout in rollouts.values():
        assert (rollout.ending is Ending.FAULTED) == (rollout.fault is not None)
        assert rollout.fault is None or rollout.reward is None
    completed = [call.key for call in calls if call.state is EffectStatus.COMPLETED]
    assert len(completed) == len(set(completed))
    told = BROKEN[directory]
    assert told.keys() == faults.keys()
    assert all(told[error] <= count <= 3 * told[error] for error, count in faults.items())
    return dict(told)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run without faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfgrpo.report.html.render", lambda *_: "<!doctype html>")
        run, _ = weather(tmp_path_factory.mktemp("calm"), FaultPlan())
    return run


def same(run: Any, calm: Any) -> None:
    assert run.library.digest == calm.library.digest
    assert run.comparison == calm.comparison


@pytest.mark.parametrize("retry_after", [None, 0.0, 1.5, 30.0])
def test_a_storm_of_429s_costs_time_and_nothing_else(
    tmp_path: Path, calm: Any, retry_after: float | None
) -> None:
    """Nine of ten attempts are refused and a call may be made once: none is given up, none is charged."""
    plan = FaultPlan.random(3, 0.9, [FaultType.RATE_LIMITED], attempts=5, retry_after=retry_after)
    run, server = weather(tmp_path, plan, limits__attempts=1)
    same(run, calm)
    faults = audit(run.directory)
    assert server.counts.rate_limited > 30
    assert faults == {"RateLimitedError": server.counts.rate_limited}
    assert set(server.counts.by_key.values()) == {1}


@pytest.mark.parametrize(
    "fault",
    [
        FaultType.RESET_BEFORE,
        FaultType.RESET_AFTER,
        FaultType.CUT_BODY,
        FaultType.MALFORMED,
        FaultType.SERVER_ERROR,
        FaultType.OVERLOADED,
        FaultType.TIMEOUT,
    ],
)
def test_what_heals_leaves_no_trace_in_the_library(tmp_path: Path, calm: Any, fault: FaultType) -> None:
    """A few calls break once."""
    plan = FaultPlan.random(8, 0.3, [fault], attempts=1)
    run, server = weather(tmp_path, plan, limits__request_timeout=30.0)
    same(run, calm)
    broken = sum(audit(run.directory).values())
    assert 2 <= broken <= 8
    extra = sum(server.counts.by_key.values()) - len(server.counts.by_key)
    assert extra == (broken if fault.paid else 0)


@pytest.mark.parametrize("fault", [FaultType.WRONG_USAGE, FaultType.NO_USAGE, FaultType.SLOW_BODY])
def test_a_good_answer_with_bad_manners_is_an_answer(tmp_path: Path, calm: Any, fault: FaultType) -> None:
    run, server = weather(tmp_path, FaultPlan.random(1, 1.0, [fault], seconds=20.0))
    same(run, calm)
    assert audit(run.directory) == {}
    assert set(server.counts.by_key.values()) == {1}


STORMS = [
    *(pytest.param(seed, id=f"{seed}") for seed in range(6)),
    *(pytest.param(seed, id=f"{seed}", marks=pytest.mark.nightly) for seed in range(6, 100)),
]


@pytest.mark.parametrize("seed", STORMS)
def test_in_any_storm_the_run_ends_and_faults_are_data(tmp_path: Path, calm: Any, seed: int) -> None:
    draw = random.Random(seed)
    types = [fault for fault in FaultType if fault is not FaultType.WRONG_COUNT]
    plan = FaultPlan.random(
        seed, draw.uniform(0.1, 0.95), draw.sample(types, draw.randint(1, len(types))), seconds=50.0
    )
    run, server = weather(tmp_path, plan, limits__attempts=3, limits__request_timeout=30.0)
    audit(run.directory, stopped=server._faults == FaultPlan())
    with JournalReader(run.directory / "journal.db") as reader:
        given_up = any(rollout.fault for rollout in reader.records("rollout", Rollout).values())
    if not given_up and run.result.faults == {}:
        same(run, calm)


def test_a_storm_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Long answers, most of them spoilt: what is given up is let go."""
    size = 2 * 2**20

    def wordy(request: ModelRequest) -> str:
        return "x" * size if request.response_schema is None else str(SCRIPT(request))

    def spoilt(attempt: int) -> Callable[[Call], bool]:
        return lambda call: call.request.response_schema is None and call.attempt == attempt

    kinds = (FaultType.CUT_BODY, FaultType.MALFORMED, FaultType.CUT_BODY, FaultType.MALFORMED)
    storm = FaultPlan()
    for attempt, kind in enumerate(kinds, 1):
        storm = storm.when(spoilt(attempt), kind)
    peaks = []
    for name, plan in (("calm", FaultPlan()), ("storm", storm)):
        tracemalloc.start()
        try:
            _, server = weather(
                tmp_path / name,
                plan,
                wordy,
                practice=2,
                held_out=3,
                practice__group_size=2,
                model__group_requests="never",
                limits__concurrency=2,
                limits__attempts=6,
            )
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert server.counts.broken >= 40
    # Half of each body at least was sent: 40 MiB more than in calm weather, of which a few copies may be there at once.
    assert peaks[1] - peaks[0] < 8 * size
