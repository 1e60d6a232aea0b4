"""Cancelled or stopped at every await of a small run: nothing leaks, nothing is lost, and a resume ends the same.

The event loop counts the callbacks that it schedules; before the n-th of them the run is cancelled. Between two
callbacks every task stands at some await, so all n together are all awaits of all tasks, in one of the orders they
can have.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.engines import server
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.dispatch.admission import Admission
from tfgrpo.errors import InterruptedRunError, RunStoppedError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.testing import ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import EffectStatus, ModelReply, ModelRequest

SCRIPT = practice_script()
#: What a stop may take (seconds): what a call in flight is given, and a little.
DRAINED = 60.0


class Trap:
    """Counts what a loop schedules and puts one callback before the n-th."""

    def __init__(self, nth: int | None) -> None:
        self.count = 0
        self.sprung = False
        self.told: list[dict[str, Any]] = []
        self._nth = nth
        self._action: Callable[[], object] | None = None

    def set(self, action: Callable[[], object]) -> None:
        """From now on callbacks count."""
        loop = asyncio.get_running_loop()
        schedule = loop.call_soon
        self._action = action

        def call_soon(callback: Callable[..., object], *args: Any, **more: Any) -> asyncio.Handle:
            self.count += 1
            if self.count == self._nth:
                self.sprung = True
                schedule(action)
            return schedule(callback, *args, **more)

        loop.call_soon = call_soon  # type: ignore[assignment, method-assign]
        loop.set_exception_handler(lambda _, context: self.told.append(context))


@contextmanager
def watched() -> Iterator[list[Admission]]:
    """Every admission that is made."""
    made: list[Admission] = []
    begin = Admission.__init__

    def init(self: Admission, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "__init__", init)
        yield made


def descriptors() -> set[str]:
    """What this process has open: files by name, sockets and pipes by number."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing itself
            found.add(str(descriptor.readlink()))
    return found


def left_open(before: set[str]) -> set[str]:
    """What is open beyond that, once threads that are closing it have had their time."""
    for _ in range(200):
        extra = descriptors() - before
        if not extra:
            break
        time.sleep(0.01)
    return extra


def clean(trap: Trap, admissions: list[Admission]) -> None:
    """Inside the loop, after the run: no task is left, no lease, nothing that nobody retrieved."""
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for admission in admissions:
        state = admission.snapshot()
        assert (state.in_flight, state.waiting) == (0, 0)
    assert trap.told == []


def paid_at_most_once(directory: Path, served: Counter[str], answers: int) -> None:
    """A key served more than once, and an answer to no completed effect, have an attempt without a result each."""
    with JournalReader(directory / "journal.db") as reader:
        calls = list(reader.calls())
    completed = Counter(call.key.text for call in calls if call.state is EffectStatus.COMPLETED)
    unsettled = Counter(call.key.text for call in calls if call.state is EffectStatus.OPEN)
    assert max(completed.values(), default=1) == 1
    for key, count in served.items():
        assert count <= completed[key] + unsettled[key], f"{key} was served {count} times"
    assert completed.total() <= answers <= completed.total() + unsettled.total()


class Cancelling:
    """One small run, cancelled before its n-th callback; `how` is a scope of anyio or the task itself."""

    def __init__(self, folder: Path, how: str) -> None:
        self.folder = folder
        self.how = how
        self.config = make_config(
            folder,
            practice=3,
            held_out=2,
            evaluation__samples=1,
            practice__batch_size=2,
            limits__concurrency=2,
        )

    def run(self, nth: int | None) -> tuple[Trap, ScriptedModel, tfgrpo.Run | None]:
        """The trap, the model, and the run if it ended before it was cancelled."""
        trap, model = Trap(nth), ScriptedModel(SCRIPT, latency=1.0)

        async def work() -> tfgrpo.Run | None:
            with anyio.CancelScope() as scope:
                task = asyncio.current_task()
                assert task is not None
                trap.set(scope.cancel if self.how == "scope" else task.cancel)
                return await tfgrpo.practice(self.config, models=models(model), run_dir=self.directory(nth))
            return None

        async def main() -> tfgrpo.Run | None:
            loop, run = asyncio.get_running_loop(), None
            with watched() as admissions:
                if self.how == "scope":
                    run = await work()
                else:
                    task = loop.create_task(work())
                    await asyncio.wait([task])
                    run = None if task.cancelled() else task.result()
                clean(trap, admissions)
            return run

        return trap, model, VirtualClock(grace=0.001).run(main)

    def directory(self, nth: int | None) -> Path:
        return self.folder / f"run-{nth}"

    def resume(self, nth: int, before: ScriptedModel) -> tfgrpo.Run:
        """Go on, and check what was paid in all."""
        model = ScriptedModel(SCRIPT, latency=1.0)
        directory = self.directory(nth)

        async def main() -> tfgrpo.Run:
            if not (directory / "journal.db").exists():
                return await tfgrpo.practice(self.config, models=models(model), run_dir=directory)
            return await tfgrpo.resume(directory, models=models(model))

        run = VirtualClock(grace=0.001).run(main)
        answers = sum(request.n for request in (*before.requests, *model.requests))
        paid_at_most_once(directory, before.served + model.served, answers)
        return run


@pytest.fixture
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the run."""
    monkeypatch.setattr("tfgrpo.report.html.render", lambda *_: "<!doctype html>")


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize(
    ("how", "step", "every"),
    [
        pytest.param("scope", 1, 14, id="scope"),
        pytest.param("task", 3, 7, id="task"),
        pytest.param("scope", 1, 1, id="scope-all", marks=pytest.mark.nightly),
        pytest.param("task", 1, 1, id="task-all", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.timeout(1800)
def test_cancelled_at_any_await_nothing_leaks_and_nothing_is_lost(
    quick_path: Path, how: str, step: int, every: int
) -> None:
    """Cancelled at every `step`-th n; every `every`-th of those is resumed as well."""
    small = Cancelling(quick_path, how)
    whole = small.run(None)
    assert whole[2] is not None
    gc.collect()
    gc.freeze()
    before = descriptors()
    nth = met = resumed = 0
    leaks = []
    try:
        while True:
            nth += step
            trap, model, run = small.run(nth)
            if not trap.sprung:
                break
            met += run is None
            gc.collect()
            if left_open(before):
                leaks.append(nth)
                before = descriptors()
            elif nth // step % every == 0:
                again = small.resume(nth, model)
                assert again.library.digest == whole[2].library.digest
                assert again.comparison == whole[2].comparison
                resumed += 1
            shutil.rmtree(small.directory(nth), ignore_errors=True)
    finally:
        gc.unfreeze()
    if how == "task":  # one place is known, the closing of the journal at the end: it has its own test below
        leaks = [n for n in leaks if n < 0.9 * nth]
    assert leaks == []
    assert met > 100 // step
    assert resumed >= met // every // 2 > 0


async def _over_http(config: tfgrpo.Config, directory: Path, trap: Trap) -> bool:
    """Run with the real client; whether it was cancelled."""
    with anyio.CancelScope() as scope:
        trap.set(scope.cancel)
        await tfgrpo.practice(config, run_dir=directory)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert trap.told == []
    return scope.cancelled_caught


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize(
    "every", [pytest.param(9, id="push"), pytest.param(1, id="all", marks=pytest.mark.nightly)]
)
@pytest.mark.timeout(1800)
def test_cancelled_at_any_await_no_connection_stays_open(quick_path: Path, every: int) -> None:
    """The client's sockets and the journal's files are closed, whatever it was that it waited for."""
    with server(quick_path / "served.jsonl", "--latency", 0.01) as opened:
        config = make_config(
            quick_path,
            practice=3,
            held_out=2,
            evaluation__samples=1,
            practice__batch_size=2,
            model__base_url=opened.base_url,
            limits__concurrency=3,
        )
        anyio.run(_over_http, config, quick_path / "whole", Trap(None))
        gc.collect()
        before = descriptors()
        met, nth = 0, 5
        while True:
            trap, directory = Trap(nth), quick_path / f"run-{nth}"
            since = opened.position()
            met += anyio.run(_over_http, config, directory, trap)
            if not trap.sprung:
                break
            gc.collect()
            assert not left_open(before), f"after n = {nth}"
            if (directory / "journal.db").exists():
                served = opened.served(since, opened.position())
                answers = sum(entry.n for entry in served)
                paid_at_most_once(directory, Counter(entry.key for entry in served), answers)
            shutil.rmtree(directory, ignore_errors=True)
            nth += every
        assert met > 150 // every


@pytest.mark.parametrize("moment", ["opening", "closing"])
async def test_a_journal_whose_opening_or_closing_is_cancelled_is_closed(tmp_path: Path, moment: str) -> None:
    """`asyncio.timeout` and `asyncio.TaskGroup` cancel tasks, not scopes; the run must stay free for a resume."""
    loop = asyncio.get_running_loop()
    for steps in range(1, 6):
        path = tmp_path / f"{steps}.db"
        making = loop.create_task(Journal.create(path, {}))
        task: asyncio.Task[Any] = making if moment == "opening" else loop.create_task((await making).aclose())
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        await asyncio.wait([task])
        for _ in range(500):
            if not any(thread.name.startswith("tfgrpo-journal") for thread in threading.enumerate()):
                break
            await anyio.sleep(0.01)
        if path.exists():
            await (await Journal.open(path)).aclose()


# --- a stop ----------------------------------------------------------------------------------------------------


class Hanging(ScriptedModel):
    """Answers after a second; what is in flight when a stop is asked for gets no answer any more."""

    def __init__(self, stop: tfgrpo.StopSwitch) -> None:
        super().__init__(SCRIPT)
        self.late: list[str] = []
        self.places = 0
        self._stop = stop

    async def complete(self, request: ModelRequest, *, key: str = "", **more: Any) -> ModelReply:
        """As said."""
        if self._stop.stopped:
            self.late.append(key)
        await anyio.sleep(1.0)
        if self._stop.stopped:
            await anyio.sleep(500.0)
        return await super().complete(request, key=key, **more)


def stopped_at(folder: Path, config: tfgrpo.Config, nth: int) -> tuple[Trap, Hanging, float, bool]:
    """Ask for a stop before the n-th callback: the trap, the model, how long the end took, whether it was a stop."""
    trap, stop, clock = Trap(nth), tfgrpo.StopSwitch(), VirtualClock(grace=0.001)
    model, asked = Hanging(stop), [0.0]

    def ask() -> None:
        asked[0] = clock.now
        stop.stop()

    async def main() -> bool:
        trap.set(ask)
        with watched() as admissions:
            try:
                await tfgrpo.practice(config, models=models(model), run_dir=folder, stop=stop)
            except RunStoppedError as error:
                assert isinstance(error.reason, InterruptedRunError)  # noqa: PT017
                return True
            finally:
                model.places = sum(a.snapshot().in_flight + a.snapshot().waiting for a in admissions)
                clean(trap, [])
        return False

    stopped = clock.run(main)
    return trap, model, clock.now - asked[0], stopped


@dataclass
class Stops:
    """What came of stopping at every n: how many stopped the run; calls sent after the stop; late ends; places kept."""

    met: int = 0
    late: list[tuple[int, str]] = field(default_factory=list)
    slow: list[tuple[int, float]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


@pytest.fixture(scope="module")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Stops:
    """Every n once. After each no task is left, and nothing that nobody retrieved."""
    folder, found, nth = tmp_path_factory.mktemp("stops"), Stops(), 0
    config = make_config(
        folder, practice=3, held_out=2, evaluation__samples=1, practice__batch_size=2, limits__concurrency=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfgrpo.report.html.render", lambda *_: "<!doctype html>")
        while True:
            nth += 1
            trap, model, seconds, stopped = stopped_at(folder / f"run-{nth}", config, nth)
            if not trap.sprung:
                return found
            found.met += stopped
            found.late += [(nth, key) for key in model.late]
            found.slow += [(nth, seconds)] if seconds > DRAINED else []
            found.kept += [nth] if model.places else []


def test_a_stop_at_any_await_ends_the_run(stops: Stops) -> None:
    assert stops.met > 100


def test_a_stop_at_any_await_ends_in_time(stops: Stops) -> None:
    assert stops.slow == []


def test_a_stop_at_any_await_launches_nothing_more(stops: Stops) -> None:
    assert stops.late == []


def test_a_stop_at_any_await_gives_every_place_back(stops: Stops) -> None:
    """Runs that share a key share the gate: a place kept is missing to all that come after."""
    assert stops.kept == []
