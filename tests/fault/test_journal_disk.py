"""A disk that is full or refuses: launching stops, nothing acknowledged is lost, and it goes on by itself."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from tests.fault.journal_vfs import RecordingVFS, full_error, io_error
from tests.ledger import intend, pay

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.journal.disk import Disk, free_bytes
from tfgrpo.keys import Key
from tfgrpo.types import (
    Choice,
    EffectStatus,
    Fault,
    FaultKind,
    Message,
    ModelReply,
    ModelRequest,
    Trajectory,
    Usage,
)

LIMITED = """
import os, resource, sys
from pathlib import Path
import anyio
from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal
from tfgrpo.keys import Key
from tfgrpo.types import Message, Trajectory

async def main():
    async with await Journal.create(Path(sys.argv[1]), {}) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        for n in range(1_000):
            await journal.record("t", Key("r", index=n), Trajectory((Message("user", os.urandom(5_000).hex()),)))
            os.write(1, f"{n}\\n".encode())

try:
    anyio.run(main)
except JournalError as error:
    os.write(1, f"error {error.message}\\n".encode())
"""


PLENTY = 1 << 40

REQUEST = ModelRequest((Message("user", "q"),))
REPLY = ModelReply((Choice("a"),), Usage(1, 2, 0, 3))


def big(n: int) -> Trajectory:
    return Trajectory((Message("user", random.Random(n).randbytes(3_000).hex()),))


def quick(vfs: RecordingVFS) -> Disk:
    """Several tries at once, and looks at a full disk in quick succession."""
    return Disk(files=vfs.files, pauses=(0.0, 0.0, 0.0, 0.0), full_pause=0.005)


class Troubles:
    """What `on_trouble` was told."""

    def __init__(self) -> None:
        self.told: list[str | None] = []

    def __call__(self, message: str | None) -> None:
        self.told.append(message)


# --- faults at the k-th write or sync --------------------------------------------------------------------


class Faults:
    """Fails the calls of one kind from the first to the last number; notes what was acknowledged meanwhile."""

    def __init__(
        self, vfs: RecordingVFS, kinds: tuple[str, ...], first: int, last: float, full: bool
    ) -> None:
        self._vfs, self._kinds, self._first, self._last, self._full = vfs, kinds, first, last, full
        self.calls = self.failed = 0
        vfs.before = self

    def __call__(self, kind: str, name: str) -> None:
        if kind in self._kinds:
            self.calls += 1
            if self._first <= self.calls <= self._last:
                self.failed += 1
                raise full_error() if self._full else io_error(kind)


class Acknowledged:
    def __init__(self) -> None:
        self.calls: dict[Key, EffectStatus] = {}
        self.records: set[Key] = set()
        self.errors: list[JournalError] = []


async def use(journal: Journal, acknowledged: Acknowledged, first: int) -> None:
    """Some calls and records by several tasks; each stops at its first error."""

    async def one(n: int) -> None:
        owner = Key("k", index=first + n)
        key = owner.do("model") if n % 2 else owner  # with an owner that stays open, and without one
        try:
            ticket = await intend(journal, key, ModelRequest((Message("user", key.text * 200),)))
            acknowledged.calls[key] = EffectStatus.OPEN
            if n % 5:
                await journal.complete(ticket, REPLY, REPLY.usage)
                acknowledged.calls[key] = EffectStatus.COMPLETED
            else:
                fault = Fault(FaultKind.MODEL, "ServerError", "503")
                await journal.fail(ticket, fault, maybe_paid=True)
                acknowledged.calls[key] = EffectStatus.FAILED
            await journal.record("t", Key("r", index=first + n), big(n))
            acknowledged.records.add(Key("r", index=first + n))
        except JournalError as error:
            acknowledged.errors.append(error)

    for start in range(0, 12, 4):
        async with anyio.create_task_group() as group:
            for n in range(start, start + 4):
                group.start_soon(one, n)


def check(path: Path, acknowledged: Acknowledged) -> None:
    """All that was acknowledged is in the file, and it can be gone on with."""

    async def go_on() -> None:
        async with await Journal.open(path) as journal:
            for key, state in acknowledged.calls.items():
                known = await journal.find(key, ModelReply)
                assert known is not None
                assert state in (known.status, EffectStatus.OPEN)
                assert known.result == (REPLY if known.status is EffectStatus.COMPLETED else None)
            assert acknowledged.records <= {key async for key, _ in journal.records("t", Trajectory)}
            with JournalReader(path) as reader:
                for call in reader.calls():
                    reader.request(call.key, call.attempt, ModelRequest)
            await journal.record("t", Key("after"), big(0))

    anyio.run(go_on)


def folders(path: Path) -> Iterator[Path]:
    for n in range(1_000_000):
        folder = path / str(n)
        folder.mkdir()
        yield folder / "journal.db"
        shutil.rmtree(folder)


def refusals(tmp_path: Path, cases: range) -> None:
    """EIO at the k-th write, truncation or sync: once, four times, or for ever."""
    for case, path in zip(cases, folders(tmp_path), strict=False):
        draw = random.Random(case)
        kinds = draw.choice([("write",), ("sync",), ("write", "sync", "truncate")])
        first = draw.randrange(1, 40)
        lasting = draw.choice([1.0, 3.0, float("inf")])
        vfs, troubles, acknowledged = RecordingVFS(record=False), Troubles(), Acknowledged()

        async def run() -> Faults:
            journal = await Journal.create(path, {}, on_trouble=troubles, _disk=quick(vfs))  # noqa: B023
            try:
                faults = Faults(vfs, kinds, first, first + lasting - 1, full=False)  # noqa: B023
                await use(journal, acknowledged, 0)  # noqa: B023
            finally:
                await journal.aclose()
            return faults

        faults = anyio.run(run)
        vfs.before = lambda kind, name: None
        check(path, acknowledged)
        if lasting < 4:
            assert not acknowledged.errors, case
            assert len(acknowledged.records) == 12, case
            assert troubles.told == [] or troubles.told[-1] is None, case
        elif acknowledged.errors:
            assert {type(error) for error in acknowledged.errors} == {JournalError}, case
            assert str(path) in acknowledged.errors[0].message, case
            assert faults.failed, case


def full_disks(tmp_path: Path, cases: range) -> None:
    """No space at the k-th write, for a while: nobody gets an error, and the run goes on by itself."""
    for case, path in zip(cases, folders(tmp_path), strict=False):
        draw = random.Random(case)
        first = draw.randrange(1, 40)
        lasting = draw.choice([1, 2, 7])
        vfs, troubles, acknowledged = RecordingVFS(record=False), Troubles(), Acknowledged()

        async def run() -> Faults:
            disk = quick(vfs)  # noqa: B023
            async with await Journal.create(path, {}, on_trouble=troubles, _disk=disk) as journal:  # noqa: B023
                faults = Faults(vfs, ("write",), first, first + lasting - 1, full=True)  # noqa: B023
                await use(journal, acknowledged, 0)  # noqa: B023
                vfs.before = lambda kind, name: None  # noqa: B023
                await journal.ready()
            return faults

        faults = anyio.run(run)
        assert not acknowledged.errors, case
        assert len(acknowledged.records) == 12, case
        assert (troubles.told != []) == (faults.failed > 0), case
        if troubles.told:
            assert "The disk is full" in (troubles.told[0] or ""), case
            assert troubles.told[-1] is None, case
        check(path, acknowledged)


def test_a_disk_that_refuses_is_survived_or_named(tmp_path: Path) -> None:
    refusals(tmp_path, range(20))


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    full_disks(tmp_path, range(20))


@pytest.mark.nightly
@pytest.mark.timeout(3_000)
def test_a_disk_that_refuses_is_survived_or_named_in_full(tmp_path: Path) -> None:
    refusals(tmp_path, range(100, 600))


@pytest.mark.nightly
@pytest.mark.timeout(3_000)
def test_a_full_disk_is_waited_for_in_full(tmp_path: Path) -> None:
    full_disks(tmp_path, range(100, 600))


# --- before it is full -----------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - a thread makes it true
            await anyio.sleep(0.002)


async def test_launching_stops_before_the_disk_is_full(tmp_path: Path) -> None:
    """Intents wait, and so does `ready`; what is in flight ends and is kept."""
    free, troubles = PLENTY, Troubles()
    path = tmp_path / "journal.db"
    disk = Disk(free=lambda directory: free, reserve=1_000_000, full_pause=0.005)
    launched: list[str] = []

    async def launch() -> None:
        await intend(journal, Key("b"), REQUEST)
        launched.append("b")

    async def wait() -> None:
        await journal.ready()
        launched.append("ready")

    async with await Journal.create(path, {}, on_trouble=troubles, _disk=disk) as journal:
        await journal.ready()
        ticket = await intend(journal, Key("a"), REQUEST)
        free = 900_000
        await journal.record("t", Key("r"), big(1))  # the commit after which the shortage is seen
        await until(lambda: troubles.told != [])
        assert "nearly full" in (troubles.told[0] or "")
        assert str(path) in (troubles.told[0] or "")
        async with anyio.create_task_group() as group:
            group.start_soon(launch)
            group.start_soon(wait)
            await journal.complete(ticket, REPLY, REPLY.usage)
            await journal.record("t", Key("s"), big(2))
            assert launched == []
            assert await journal.find(Key("b"), ModelReply) is None
            free = PLENTY
        assert sorted(launched) == ["b", "ready"]
        await until(lambda: len(troubles.told) == 2)
        assert troubles.told[1] is None


async def test_the_reserve_grows_with_what_is_in_flight(tmp_path: Path) -> None:
    free = 1_000_000 + 20 * 2 * 8_192
    disk = Disk(free=lambda directory: free, reserve=1_000_000, full_pause=0.005)
    troubles = Troubles()
    async with await Journal.create(tmp_path / "journal.db", {}, on_trouble=troubles, _disk=disk) as journal:
        tickets = [await intend(journal, Key("k", index=n), REQUEST) for n in range(21)]
        await until(lambda: troubles.told != [])
        assert "21 calls in flight" in (troubles.told[0] or "")
        for ticket in tickets[:15]:
            await journal.complete(ticket, REPLY, REPLY.usage)
        with anyio.fail_after(10):
            await journal.ready()


async def test_a_journal_opened_on_a_full_disk_says_so(tmp_path: Path) -> None:
    troubles = Troubles()
    disk = Disk(free=lambda directory: 0, full_pause=0.005)
    async with await Journal.create(tmp_path / "journal.db", {}, on_trouble=troubles, _disk=disk) as journal:
        with anyio.move_on_after(0.05) as scope:
            await intend(journal, Key("k"), REQUEST)
        assert scope.cancelled_caught
        assert await journal.find(Key("k"), ModelReply) is None
        assert len(troubles.told) == 1


async def test_closing_on_a_full_disk_ends(tmp_path: Path) -> None:
    """What was acknowledged is kept; who still waits gets the error."""
    vfs, errors = RecordingVFS(record=False), []
    path = tmp_path / "journal.db"
    journal = await Journal.create(path, {}, _disk=Disk(files=vfs.files, full_pause=0.005))

    async def wait(key: str) -> None:
        try:
            await journal.record("t", Key(key), big(3))
        except JournalError as error:
            errors.append(error)

    async def launch() -> None:
        try:
            await journal.ready()
        except JournalError as error:
            errors.append(error)

    await journal.record("t", Key("kept"), big(1))
    faults = Faults(vfs, ("write",), 1, float("inf"), full=True)
    async with anyio.create_task_group() as group:
        for key in ("a", "b"):
            group.start_soon(wait, key)
        await until(lambda: faults.failed > 2)
        group.start_soon(launch)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await journal.aclose()
    assert sorted(type(error).__name__ for error in errors) == ["JournalError", *["JournalFullError"] * 2]
    assert any(f"tfgrpo resume {tmp_path}" in error.message for error in errors)
    with JournalReader(path) as reader:
        assert reader.records("t", Trajectory) == {Key("kept"): big(1)}


# --- real file systems -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root and the mount program")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_and_free(folder: Path, reserve: int, seed: int) -> None:
    """Write until nothing fits, free the space, and see everything arrive; twice."""
    path, ballast = folder / "journal.db", folder / "ballast"
    troubles, acknowledged = Troubles(), set()
    draw = random.Random(seed)

    async def run() -> None:
        disk = Disk(reserve=reserve, full_pause=0.005)
        async with await Journal.create(path, {}, on_trouble=troubles, _disk=disk) as journal:

            async def write(n: int) -> None:
                await pay(journal, Key("k", index=n).do("model"), REQUEST, REPLY)
                await journal.record("t", Key("k", index=n), big(n))
                acknowledged.add(n)

            for turn in range(2):
                told = len(troubles.told)
                with contextlib.suppress(
                    OSError
                ):  # the log may be folded in just now; then it fills the disk
                    ballast.write_bytes(bytes(free_bytes(folder) - draw.randrange(100_000, 900_000)))
                async with anyio.create_task_group() as group:
                    for n in range(300 * turn, 300 * turn + 300):
                        group.start_soon(write, n)
                    await until(lambda: len(troubles.told) > told)  # noqa: B023 - awaited at once
                    await anyio.sleep(draw.random() / 20)
                    ballast.unlink()
                await until(lambda: troubles.told[-1] is None)

    anyio.run(run)
    assert acknowledged == set(range(600))
    with JournalReader(path) as reader:
        assert reader.records("t", Trajectory) == {Key("k", index=n): big(n) for n in acknowledged}
        assert reader.open_intents() == 0


@pytest.mark.parametrize("reserve", [0, 500_000])
def test_a_real_full_disk_is_waited_for(
    small_disk: Path, reserve: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfgrpo.journal.writer._LOG_BYTES", 300_000)
    fill_and_free(small_disk, reserve, 1)


@pytest.mark.nightly
@pytest.mark.timeout(3_000)
def test_a_real_full_disk_is_waited_for_in_full(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfgrpo.journal.writer._LOG_BYTES", 300_000)
    for seed in range(100):
        fill_and_free(small_disk, 500_000 * (seed % 2), seed)
        for file in small_disk.iterdir():
            file.unlink()


def test_a_file_that_may_not_grow_is_a_journal_error_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *written, last = result.stdout.splitlines()
    assert result.stderr == ""
    assert last.startswith(f"error The journal {path} cannot be read or written")
    assert f"tfgrpo resume {tmp_path}" in last
    assert len(written) > 10
    with JournalReader(path) as reader:
        assert reader.records("t", Trajectory).keys() == {Key("r", index=int(n)) for n in written}


async def test_a_bug_in_the_writer_reaches_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in the thread, nobody waits for ever."""

    def explode(table: object, rows: object) -> list[bytes]:
        raise MemoryError("no room")

    async with await Journal.create(tmp_path / "journal.db", {}) as journal:
        monkeypatch.setattr(journal._writer._packer, "pack", explode)
        with anyio.fail_after(5):
            for key in ("a", "b"):
                with pytest.raises(JournalError, match="no room"):
                    await journal.record("t", Key(key), Trajectory(()))
        assert [pair async for pair in journal.records("t", Trajectory)] == []
