"""Signals, a second engine, and a wall clock that jumps: through the command line, against a server that survives."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.fault.conftest import World, write_config
from tests.support.engines import Engine, Ledger, Server, server, shim

import tfgrpo
from tfgrpo.errors import JournalError
from tfgrpo.journal import JournalReader

INTERRUPTED = 130
#: Seconds that a loaded machine may add.
SLACK = 5.0


@contextmanager
def elsewhere(
    world: World, folder: Path, *options: object, limits: str = "concurrency = 4"
) -> Iterator[World]:
    """The same run against a server with these options: it comes to the same."""
    with server(folder / "served.jsonl", *options) as opened:
        yield replace(world, server=opened, config=write_config(folder, opened.base_url, limits=limits))


@contextmanager
def healed(world: World) -> Iterator[Server]:
    """A server at the same place, with the same log, that answers at once."""
    world.server.process.terminate()
    world.server.process.wait(20)
    with server(world.server.log, "--port", urlsplit(world.server.base_url).port) as opened:
        yield opened


def until_paid(world: World, ledger: Ledger, calls: int) -> None:
    """Wait until the server was paid for that many calls."""
    deadline = time.monotonic() + 60
    while len(world.server.served(ledger.start)) < calls:
        assert time.monotonic() < deadline, "the engine makes no calls"
        time.sleep(0.002)


def end(engine: Engine) -> float:
    """Wait for the end by an interrupt; seconds."""
    started = time.monotonic()
    ended = engine.wait()
    assert ended.code == INTERRUPTED, engine.said()
    assert "Traceback" not in engine.said()
    return time.monotonic() - started


def left_open(directory: Path) -> int:
    with JournalReader(directory / "journal.db") as reader:
        return reader.open_intents()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [1, 6])
def test_the_first_signal_lets_calls_finish_and_keeps_everything(
    world: World, tmp_path: Path, number: signal.Signals, after: int
) -> None:
    with elsewhere(world, tmp_path, "--latency", 0.3) as here:
        ledger = Ledger(tmp_path / "run", here.server)
        engine = here.stable.start(*here.practice(ledger.directory))
        until_paid(here, ledger, after)
        engine.kill(number)
        assert end(engine) < 0.3 + SLACK
        ledger.check()
        assert left_open(ledger.directory) == 0, "what was in flight is kept"
        assert f"tfgrpo resume {ledger.directory}" in " ".join(engine.said().split())
        with healed(here) as ledger.server:
            assert replace(here, server=ledger.server).finish(ledger) == 0


def test_the_second_signal_stops_at_once_and_what_was_cut_off_is_counted(
    world: World, tmp_path: Path
) -> None:
    with elsewhere(world, tmp_path, "--latency", 300) as here:
        ledger = Ledger(tmp_path / "run", here.server)
        engine = here.stable.start(*here.practice(ledger.directory))
        until_paid(here, ledger, 2)
        engine.kill(signal.SIGINT)
        time.sleep(0.01)
        engine.kill(signal.SIGINT)
        time.sleep(0.5)
        assert engine.running, "the first signal, if delivered twice, waits for what is in flight"
        engine.kill(signal.SIGTERM)
        assert end(engine) < SLACK
        assert left_open(ledger.directory) == 2
        ledger.check()
        with healed(here) as ledger.server:
            assert replace(here, server=ledger.server).finish(ledger) == 2


def test_a_signal_ends_a_wait_for_the_provider(world: World, tmp_path: Path) -> None:
    """Nothing is in flight while a Retry-After passes, so nothing has to be waited for."""
    storm = ("--fault-rate", 1, "--fault-types", "rate_limited", "--retry-after", 600)
    with elsewhere(world, tmp_path, *storm) as here:
        ledger = Ledger(tmp_path / "run", here.server)
        engine = here.stable.start(*here.practice(ledger.directory))
        deadline = time.monotonic() + 60
        while not ledger.begun or left_open(ledger.directory) or not _refused(ledger.directory):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        engine.kill(signal.SIGINT)
        assert end(engine) < SLACK
        with healed(here) as ledger.server:
            assert replace(here, server=ledger.server).finish(ledger) == 0


def _refused(directory: Path) -> int:
    with JournalReader(directory / "journal.db") as reader:
        return reader.faults_by_kind().get("RateLimitedError", 0)


async def test_a_second_engine_is_refused_and_the_first_goes_on(world: World, tmp_path: Path) -> None:
    with elsewhere(world, tmp_path, "--latency", 0.1) as here:
        ledger = Ledger(tmp_path / "run", here.server)
        engine = here.stable.start(*here.practice(ledger.directory))
        until_paid(here, ledger, 3)
        with pytest.raises(JournalError, match="Another tfgrpo process"):
            await tfgrpo.resume(ledger.directory)
        assert engine.running
        assert engine.wait().code == 0, engine.said()
        assert here.finish(ledger) == 0


@pytest.mark.skipif(shim() is None, reason="no C compiler, or not Linux")
def test_a_wall_clock_that_jumps_an_hour_back_and_forth_changes_nothing(world: World, tmp_path: Path) -> None:
    """Pacing, pauses and deadlines go by the monotonic clock; the journal only notes what the wall clock says."""
    storm = ("--fault-rate", 0.3, "--fault-types", "rate_limited,overloaded", "--retry-after", 0.3)
    options = (*storm, "--fault-attempts", 1)
    limits = "concurrency = 4\nrequests_per_minute = 600\n[expert.limits]\nrequest_timeout = 20"
    times = {}
    with elsewhere(world, tmp_path, *options, limits=limits) as here:
        for clock in (0.0, 3600.0):
            ledger = Ledger(tmp_path / f"run-{clock:g}", here.server)
            engine = here.stable.start(*here.practice(ledger.directory), clock=clock)
            ended = engine.wait()
            assert ended.code == 0, engine.said()
            assert here.finish(ledger) == 0
            times[clock] = ended.seconds
            with JournalReader(ledger.directory / "journal.db") as reader:
                noted = [call.intended_at for call in reader.calls()]
            assert (max(noted) - min(noted) > 3000) == (clock > 0), "the clock did jump"
    # 14 calls at 10 a second, bursts of ten, and pauses.
    assert 0.3 < times[0.0] < 0.3 + 3 * SLACK
    assert abs(times[3600.0] - times[0.0]) < 2 * SLACK


@pytest.mark.skipif(shim() is None, reason="no C compiler, or not Linux")
def test_a_resume_whose_clock_is_wrong_goes_on_all_the_same(world: World, quick_path: Path) -> None:
    ledger = Ledger(quick_path / "run", world.server)
    engine = world.stable.start(*world.practice(ledger.directory), clock=3600.0)
    until_paid(world, ledger, 5)
    engine.kill()
    engine.wait()
    ledger.check()
    ended = world.stable.run("resume", ledger.directory, clock=3600.0)
    assert ended.code == 0
    world.finish(ledger)
