"""A simulated power cut: whatever a disk may hold then, everything acknowledged is there and nothing is damaged.

An engine works through a file layer that notes every write, truncation, sync and deletion, and its own
acknowledgements among them. A cut at any moment leaves what was synced, and of what was not, any subset of the
512-byte sectors, some of them torn. A sync that failed leaves its sectors undecided: the system takes them for
written, and later syncs that succeed say nothing about them.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.fault.journal_vfs import Event, RecordingVFS, io_error
from tests.ledger import intend

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.journal.disk import Disk
from tfgrpo.keys import Key
from tfgrpo.types import Choice, EffectStatus, Message, ModelReply, ModelRequest, Trajectory, Usage

SECTOR = 512

FILES = ("journal.db", "journal.db-wal")

SHARED = Message("system", "s" * 900)


def key_of(n: int) -> Key:
    """Effects with an owner and without one in turn."""
    return Key("k", index=n) if n % 2 else Key("k", index=n).do("model")


def request(n: int) -> ModelRequest:
    text = random.Random(n).randbytes(2_500 if n % 4 == 0 else 40).hex()
    return ModelRequest((SHARED, Message("user", text)), seed=n)


def reply(n: int) -> ModelReply:
    return ModelReply((Choice(random.Random(-n).randbytes(30 + 400 * (n % 3)).hex()),), Usage(1, n))


def trajectory(n: int) -> Trajectory:
    return Trajectory((*request(n).messages, Message("assistant", reply(n).choices[0].content)))


class Image:
    """What a disk holds for sure, what is still on its way, and what was lost track of by failed syncs."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files: dict[str, bytearray] = {name: bytearray(data) for name, data in files.items()}
        self.pending: dict[str, list[Event]] = {}
        self.deleted: set[str] = set()

    def apply(self, event: Event, draw: random.Random) -> None:
        kind, name, *_ = event
        match kind:
            case "write" | "truncate":
                self.deleted.discard(name)
                self.pending.setdefault(name, []).append(event)
            case "sync":
                for change in self.pending.pop(name, ()):
                    self._change(self.files.setdefault(name, bytearray()), change)
            case "failed sync":  # decided now, and never told
                self._some(name, draw, self.pending.pop(name, []))
            case "delete":
                self.pending.pop(name, None)
                self.deleted.add(name)

    def cut(self, draw: random.Random) -> dict[str, bytes]:
        """What a power cut leaves: one of the possible images."""
        left = Image({name: bytes(data) for name, data in self.files.items()})
        for name, changes in self.pending.items():
            left._some(name, draw, changes)
        return {
            name: bytes(data)
            for name, data in left.files.items()
            if name not in self.deleted or draw.random() < 0.5
        }

    def _some(self, name: str, draw: random.Random, changes: list[Event]) -> None:
        file = self.files.setdefault(name, bytearray())
        part = draw.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for kind, _, place, data in changes:
            if kind == "truncate":
                if draw.random() < part:
                    self._change(file, (kind, name, place, data))
                continue
            start = place
            while start < place + len(data):  # sectors stand where they stand in the file
                end = min(place + len(data), start - start % SECTOR + SECTOR)
                piece = data[start - place : end - place]
                if draw.random() < part:
                    if draw.random() < 0.05:
                        piece = piece[: draw.randrange(len(piece))]  # torn
                    self._change(file, (kind, name, start, piece))
                start = end

    @staticmethod
    def _change(file: bytearray, event: Event) -> None:
        kind, _, place, data = event
        end = place + len(data)
        if len(file) < end:
            file.extend(bytes(end - len(file)))
        if kind == "truncate":
            del file[place:]
        file[place:end] = data


async def work(path: Path, vfs: RecordingVFS, seed: int) -> None:
    """Three engines in turn: calls, records, small logs.

    By the seed, syncs never fail, or fail and are mended, or fail and kill the engine: the next one finds what
    the system's memory holds, which a power cut does not spare.
    """
    draw = random.Random(seed)
    pauses = (0.0, 0.0, 0.0) if seed % 3 == 1 else ()
    disk = Disk(files=vfs.files, pauses=pauses, full_pause=0.01)
    refused = 0

    def before(kind: str, name: str) -> None:
        nonlocal refused
        if seed % 3 and kind == "sync" and refused == 0 and draw.random() < 0.06:
            refused = 2  # the next two syncs succeed: no more than one in a row
            vfs.events.append(("failed sync", name, 0, b""))
            raise io_error("sync")
        refused = max(0, refused - (kind == "sync"))

    number = 0
    for _ in range(3):
        journal = await Journal.open(path, _disk=disk)
        vfs.before = before
        for _ in range(draw.randrange(4, 10)):
            async with anyio.create_task_group() as group:
                for _ in range(draw.randrange(1, 6)):
                    number += 1
                    group.start_soon(one, journal, vfs, number)
        vfs.before = lambda kind, name: None
        memory = {name: file.read_bytes() for name in FILES if (file := path.with_name(name)).exists()}
        broken = journal._writer._failure is not None
        vfs.record = not broken
        await journal.aclose()
        vfs.record = True
        if broken:  # it was not closed but died: what closing did is undone
            for name in (*FILES, "journal.db-shm"):
                path.with_name(name).unlink(missing_ok=True)
            for name, data in memory.items():
                path.with_name(name).write_bytes(data)


async def one(journal: Journal, vfs: RecordingVFS, n: int) -> None:
    with contextlib.suppress(JournalError):
        ticket = await intend(journal, key_of(n), request(n))
        vfs.events.append(("intended", "", n, b""))
        await journal.complete(ticket, reply(n), reply(n).usage)
        vfs.events.append(("completed", "", n, b""))
        await journal.record("t", Key("r", index=n), trajectory(n))
        vfs.events.append(("recorded", "", n, b""))


def images(
    events: list[Event], base: bytes, seed: int, cases: int
) -> Iterator[tuple[dict[str, bytes], dict[str, set[int]]]]:
    """A number of cuts at random moments: the files they leave, and what had been acknowledged by then."""
    draw = random.Random(seed)
    image = Image({"journal.db": base})
    acknowledged: dict[str, set[int]] = {"intended": set(), "completed": set(), "recorded": set()}
    moments = sorted(draw.randrange(len(events) + 1) for _ in range(cases))
    for index, event in enumerate([*events, ("end", "", 0, b"")]):
        while moments and moments[0] == index:
            moments.pop(0)
            yield image.cut(draw), acknowledged
        if event[0] in acknowledged:
            acknowledged[event[0]].add(event[2])
        else:
            image.apply(event, draw)


async def check(folder: Path, files: dict[str, bytes], acknowledged: dict[str, set[int]]) -> None:
    """Nothing acknowledged is lost, nothing is damaged, and the run goes on."""
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (folder / name).unlink(missing_ok=True)
        if name in files:
            (folder / name).write_bytes(files[name])
    async with await Journal.open(folder / "journal.db") as journal:
        with JournalReader(folder / "journal.db") as reader:
            states = {call.key: call.state for call in reader.calls()}
            assert {key_of(n) for n in acknowledged["intended"]} <= states.keys()
            for key, state in states.items():
                n = key.index or 0
                assert reader.request(key, 0, ModelRequest) == request(n)
                known = await journal.find(key, ModelReply)
                assert known is not None
                assert known.result == (reply(n) if state is EffectStatus.COMPLETED else None)
        assert {states[key_of(n)] for n in acknowledged["completed"]} <= {EffectStatus.COMPLETED}
        records = dict([pair async for pair in journal.records("t", Trajectory)])
        assert records == {key: trajectory(key.index or 0) for key in records}
        assert {Key("r", index=n) for n in acknowledged["recorded"]} <= records.keys()


async def examine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, cases: int) -> None:
    monkeypatch.setattr("tfgrpo.journal.writer._LOG_BYTES", 120_000)
    image = tmp_path / "image"
    image.mkdir()
    failed = 0
    for run in range(runs):
        folder = tmp_path / str(run)
        folder.mkdir()
        path = folder / "journal.db"
        await (await Journal.create(path, {})).aclose()
        base = path.read_bytes()
        vfs = RecordingVFS()
        await work(path, vfs, run)
        kinds = {event[0] for event in vfs.events}
        # An engine that dies of its first sync acknowledges nothing.
        assert run % 3 or kinds >= {"write", "sync", "truncate", "intended", "completed", "recorded"}
        failed += "failed sync" in kinds
        for files, acknowledged in images(vfs.events, base, run, cases):
            await check(image, files, acknowledged)
    assert failed >= runs // 2


async def test_nothing_acknowledged_is_lost_by_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await examine(tmp_path, monkeypatch, 12, 42)


@pytest.mark.nightly
@pytest.mark.timeout(6_000)
async def test_nothing_acknowledged_is_lost_by_a_power_cut_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await examine(tmp_path, monkeypatch, 200, 100)
