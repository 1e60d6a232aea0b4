"""Killed at its k-th write, sync, rename, unlink or truncation: before it, after it, or with half of it done.

A library loaded before the C library does it at no cost, counts all threads together and can tear a write; strace does
it from outside, without a line of ours in the process. Every k is a case at night; a push draws 100 of them.
"""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.fault.conftest import World
from tests.support.engines import Arm, Call, How, Ledger, shim

from tfgrpo.journal import JournalReader

needs_shim = pytest.mark.skipif(shim() is None, reason="no C compiler, or not Linux")

WAYS = (How.KILL_BEFORE, How.KILL_AFTER, How.KILL_TORN)


def calls_of_a_run(world: World, directory: Path, calls: Call) -> int:
    """How many such calls an undisturbed run makes."""
    ended = world.stable.run(*world.practice(directory), arm=Arm(str(directory), calls, 0, How.COUNT))
    assert ended.code == 0
    return ended.seen


def cases_of(world: World, folder: Path) -> list[tuple[Call, int, How]]:
    """Every (kind, k, way). Only a write can be torn."""
    cases = []
    for kind in Call:
        count = calls_of_a_run(world, folder / f"count-{kind}", kind)
        ways = WAYS if kind is Call.WRITE else WAYS[:2]
        cases += [(kind, k, how) for k in range(1, count + 1) for how in ways]
    return cases


def kill_and_resume(world: World, directory: Path, kind: Call, k: int, how: How) -> tuple[bool, int]:
    """Whether the kill met a living engine, and how many servings were extra."""
    ledger = Ledger(directory, world.server)
    ended = world.stable.run(*world.practice(directory), arm=Arm(str(directory), kind, k, how))
    assert ended.code in (0, -9), (kind, k, how, ended)
    ledger.check()
    extra = world.finish(ledger)
    shutil.rmtree(directory)
    return ended.code == -9, extra


@needs_shim
@pytest.mark.parametrize(
    "limit", [pytest.param(100, id="push"), pytest.param(None, id="all", marks=pytest.mark.nightly)]
)
@pytest.mark.timeout(3600)
def test_killed_at_any_system_call_nothing_is_lost_or_paid_twice(
    world: World, quick_path: Path, limit: int | None
) -> None:
    cases = cases_of(world, quick_path)
    assert {kind for kind, _, _ in cases} >= {Call.WRITE, Call.SYNC, Call.RENAME}
    random.Random(4).shuffle(cases)
    killed = extra = 0
    chosen = cases[:limit]
    for number, (kind, k, how) in enumerate(chosen):
        met, more = kill_and_resume(world, quick_path / f"{number}", kind, k, how)
        killed, extra = killed + met, extra + more
    assert killed > len(chosen) * 0.8
    assert extra > 0


@needs_shim
def test_killed_again_while_it_resumes(world: World, quick_path: Path) -> None:
    """The first calls of every engine recover what the one before left: each of them is interrupted in turn."""
    ledger = Ledger(quick_path / "run", world.server)
    world.stable.run(
        *world.practice(ledger.directory), arm=Arm(str(ledger.directory), Call.SYNC, 12, How.KILL_AFTER)
    )
    ledger.check()
    everything = ~Call(0)
    for k in range(1, 17):
        arm = Arm(str(ledger.directory), everything, k, WAYS[k % 3])
        ended = world.stable.run("resume", ledger.directory, arm=arm)
        assert ended.code in (0, -9)
        ledger.check()
    world.finish(ledger)


# --- strace --------------------------------------------------------------------------------------------------


def tracing() -> str | None:
    """Why strace cannot be used here; None if it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    probe = subprocess.run([strace, "-qq", "-e", "trace=none", "true"], capture_output=True, text=True)
    return f"ptrace is not permitted: {probe.stderr.strip()[:200]}" if probe.returncode else None


def traced_kill(world: World, directory: Path, call: str, k: int) -> bool:
    """Start an engine, let strace kill it as one of its threads enters such a call for the k-th time."""
    engine = world.stable.start(*world.practice(directory), traced=True)
    inject = f"inject={call}:signal=SIGKILL:when={k}"
    # A path filter would not see the names that SQLite renames or unlinks, so the kinds alone decide.
    command = [
        "strace",
        "-f",
        "-qqq",
        "-p",
        str(engine.pid),
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        inject,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
        code = engine.wait().code
        _, told = tracer.communicate(timeout=60)
    assert code in (0, -9), (engine.said(), told)
    return code == -9


#: (system call, the k of a push); at night every k up to the first that kills nobody.
TRACED = [
    ("fdatasync", (2, 9)),
    ("pwrite64", (5, 40, 120)),
    ("rename", (2, 3)),
    ("ftruncate", (1,)),
    ("unlink", (1,)),
]


def sweep(world: World, folder: Path, call: str, numbers: range | tuple[int, ...]) -> int:
    killed = 0
    for k in numbers:
        ledger = Ledger(folder / f"{call}-{k}", world.server)
        met = traced_kill(world, ledger.directory, call, k)
        ledger.check()
        world.finish(ledger)
        shutil.rmtree(ledger.directory)
        killed += met
        if not met and isinstance(numbers, range):
            break
    return killed


@pytest.mark.skipif(tracing() is not None, reason=str(tracing()))
def test_killed_from_outside_by_a_tracer(world: World, quick_path: Path) -> None:
    killed = sum(sweep(world, quick_path, call, numbers) for call, numbers in TRACED)
    assert killed >= 5


@pytest.mark.nightly
@pytest.mark.skipif(tracing() is not None, reason=str(tracing()))
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", [call for call, _ in TRACED])
def test_killed_from_outside_at_every_call(world: World, quick_path: Path, call: str) -> None:
    assert sweep(world, quick_path, call, range(1, 10_000)) > 0


# --- a disk that refuses -----------------------------------------------------------------------------------------


def refused(world: World, directory: Path, kind: Call, k: int, error: int) -> int:
    """A run whose disk refuses from the k-th call on; it is well again when the engine ended or has waited."""
    ledger = Ledger(directory, world.server)
    cure = directory.with_suffix(".cure")
    arm = Arm(str(directory), kind, k, How.REFUSE, error, str(cure))
    engine = world.stable.start(*world.practice(directory), arm=arm)
    deadline = time.monotonic() + 3 * world.seconds + 0.5
    stuck = world.server.position()
    while time.monotonic() < deadline and engine.running:
        time.sleep(0.02)
    if engine.running:  # it waits for room: then it must have stopped launching
        stuck = world.server.position()
        time.sleep(0.3)
        assert world.server.position() == stuck, "calls were launched that no journal could hold"
    cure.touch()
    ended = engine.wait()
    assert ended.code in (0, 2, 3), (kind, k, ended, engine.said()[-2000:])
    if ended.code:
        assert str(directory) in engine.said().replace("\n", ""), "the message names the place"
        assert "Traceback" not in engine.said()
    ledger.check()
    world.finish(ledger)
    return ended.code


def creation(world: World, folder: Path, kind: Call) -> int:
    """How many such calls there are until an empty journal stands under its name."""
    parts = ("config.toml", "library/v0000.json", "journal.db.new", "journal.db.lock")
    arms = [Arm(f"{folder}/creation-{kind}-{part[:9]}/{part}", kind, 0, How.COUNT) for part in parts]
    return sum(
        world.stable.run(
            "practice", world.config, "--run-dir", Path(arm.folder.removesuffix(part)), arm=arm
        ).seen
        for part, arm in zip(parts, arms, strict=True)
    )


REFUSALS = [
    pytest.param(Call.WRITE, errno.ENOSPC, id="full"),
    pytest.param(Call.WRITE, errno.EIO, id="write"),
    pytest.param(Call.SYNC, errno.EIO, id="sync"),
]
FINE = [pytest.param(5, id="push"), pytest.param(None, id="all", marks=pytest.mark.nightly)]


@needs_shim
@pytest.mark.parametrize("cases", FINE)
@pytest.mark.parametrize(("kind", "error"), REFUSALS)
@pytest.mark.timeout(3600)
def test_a_disk_that_refuses_loses_nothing(
    world: World, quick_path: Path, kind: Call, error: int, cases: int | None
) -> None:
    """Whichever write or sync of a run it is from which on nothing goes any more."""
    first = creation(world, quick_path, kind) + 1
    numbers = range(first, calls_of_a_run(world, quick_path / "count", kind) + 1)
    assert len(numbers) > 20
    for k in random.Random(5).sample(numbers, cases or len(numbers)):
        directory = quick_path / f"{k}"
        refused(world, directory, kind, k, error)
        shutil.rmtree(directory)


@needs_shim
@pytest.mark.parametrize(("kind", "error"), REFUSALS)
def test_a_disk_that_refuses_a_new_journal_leaves_a_whole_one_or_none(
    world: World, quick_path: Path, kind: Call, error: int
) -> None:
    last = creation(world, quick_path, kind)
    assert last > 3
    for k in range(max(1, last - 12), last + 4):  # the folder's own syncs were not counted
        directory = quick_path / f"{k}"
        refused(world, directory, kind, k, error)
        shutil.rmtree(directory)


@needs_shim
def test_a_full_disk_that_is_freed_needs_nobody(world: World, quick_path: Path) -> None:
    directory = quick_path / "run"
    count = calls_of_a_run(world, quick_path / "count", Call.WRITE)
    assert refused(world, directory, Call.WRITE, count // 2, errno.ENOSPC) == 0
    with JournalReader(directory / "journal.db") as reader:
        assert reader.open_intents() == 0
