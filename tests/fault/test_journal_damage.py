"""Flipped bits and cut files: noticed or harmless, never a foreign exception, and what is sound is recovered."""

# ruff: noqa: ASYNC240
from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.ledger import intend

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader, salvage
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

SHARED = Message("system", "s" * 500)


def text(n: int) -> str:
    """Text that hardly compresses; some of it is larger than a page."""
    return random.Random(n).randbytes(3_000 if n % 5 == 0 else 60).hex()


def key_of(n: int) -> Key:
    """Effects with an owner and without one in turn."""
    return Key("k", index=n) if n % 2 else Key("k", index=n).do("model")


async def build(path: Path) -> None:
    async with await Journal.create(path, {"seed": 1}) as journal:
        for n in range(16):
            request = ModelRequest((SHARED, Message("user", text(n))), seed=n)
            ticket = await intend(journal, key_of(n), request)
            if n % 8 == 7:
                fault = Fault(FaultKind.MODEL, "ServerError", text(n + 100)[:200])
                await journal.fail(ticket, fault, maybe_paid=True, usage=Usage(1, n))
            elif n % 8 != 6:
                reply = ModelReply((Choice(text(n + 200)),), Usage(1, 10, 0, n))
                await journal.complete(ticket, reply, reply.usage)
            value = Trajectory((SHARED, Message("assistant", text(n))))
            await journal.record("t", Key("r", index=n), value)


async def content(path: Path) -> dict[Any, Any]:
    """Everything that a journal says, by both sides."""
    found: dict[Any, Any] = {}
    async with await Journal.open(path) as journal:
        found["header"] = journal.header
        with JournalReader(path) as reader:
            for call in reader.calls():
                known = await journal.find(call.key, ModelReply)
                found["call", call.key] = (
                    call.state,
                    call.usage,
                    call.fault,
                    reader.request(call.key, call.attempt, ModelRequest),
                    reader.result(call.key, call.attempt, ModelReply),
                    known and known.result,
                )
            found["sums"] = reader.usage_by_role(), reader.faults_by_kind(), reader.open_intents()
        found |= {("record", key): value async for key, value in journal.records("t", Trajectory)}
    with JournalReader(path) as reader:
        assert reader.records("t", Trajectory).keys() == {key[1] for key in found if key[0] == "record"}
    return found


async def examine(
    good: Path, damage: Callable[[random.Random, bytearray], None], cases: range
) -> dict[str, int]:
    """Damage copies of a journal and read them; counts what was noticed and what could be recovered."""
    whole, clean = await content(good), good.read_bytes()
    rows = len(whole)
    seen = {"noticed": 0, "harmless": 0, "recovered": 0, "possible": 0}
    path, target = good.with_name("bad.db"), good.with_name("rebuilt.db")
    for case in cases:
        data = bytearray(clean)
        damage(random.Random(case), data)
        for name in ("bad.db-wal", "bad.db-shm", "rebuilt.db"):
            good.with_name(name).unlink(missing_ok=True)
        path.write_bytes(data)
        noticed = None
        try:
            assert await content(path) == whole, case
        except JournalError as error:
            noticed = error.message
        seen["harmless" if noticed is None else "noticed"] += 1
        assert noticed is None or "bad.db" in noticed, case
        path.write_bytes(data)
        seen["possible"] += rows
        try:
            report = salvage(path, target)
        except JournalError:
            continue
        saved = await content(target)
        for key, value in saved.items():
            if key[0] == "record":
                assert value == whole[key], case
            elif key[0] == "call":
                # An outcome may be lost, and then its call is open; nothing is ever wrong.
                original = whole[key]
                assert value[3] == original[3], case
                assert value == original or (value[0], value[4]) == (EffectStatus.OPEN, None), case
        lost = [key for key in whole if key != "sums" and saved.get(key) != whole[key]]
        assert bool(lost) <= bool(report.lost), case
        seen["recovered"] += rows - len(lost)
    return seen


def flip(draw: random.Random, data: bytearray) -> None:
    # Half of the places are in the first pages: the header, the tables' roots, the small rows.
    place = draw.randrange(len(data) if draw.random() < 0.5 else 30_000)
    data[place] ^= 1 << draw.randrange(8)


def cut(draw: random.Random, data: bytearray) -> None:
    del data[draw.randrange(len(data)) :]


def spoil(draw: random.Random, data: bytearray) -> None:
    """A sector of garbage."""
    start = draw.randrange(len(data) // 512) * 512
    data[start : start + 512] = draw.randbytes(512)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "good.db"
    anyio.run(build, path)
    return path


# --- a log that a crash left -----------------------------------------------------------------------------


async def crash(path: Path, left: Path) -> None:
    """Records in the database, more of them in the log only, one transaction each; then the engine dies."""
    async with await Journal.create(path, {}) as journal:
        for n in range(10):
            await journal.record("t", Key("r", index=n), Trajectory((Message("user", text(n)),)))
    async with await Journal.open(path) as journal:
        for n in range(10, 30):
            await journal.record("t", Key("r", index=n), Trajectory((Message("user", text(n)),)))
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{left}{end}")


async def examine_logs(
    tmp_path: Path, damage: Callable[[random.Random, bytearray], None], cases: range
) -> int:
    """Damage the log: at most the last transaction may be lost unnoticed; counts what was noticed."""
    left, path, target = tmp_path / "left.db", tmp_path / "bad.db", tmp_path / "rebuilt.db"
    await crash(tmp_path / "journal.db", left)
    log = Path(f"{left}-wal").read_bytes()
    noticed = 0
    for case in cases:
        data = bytearray(log)
        damage(random.Random(case), data)
        for name in ("bad.db-shm", "rebuilt.db"):
            (tmp_path / name).unlink(missing_ok=True)
        shutil.copy(left, path)
        Path(f"{path}-wal").write_bytes(data)
        try:
            journal = await Journal.open(path)
        except JournalError:
            noticed += 1
            # Reading and refusing have changed nothing: all but what the damaged bytes held is recovered.
            salvage(path, target)
            with JournalReader(target) as reader:
                found = reader.records("t", Trajectory)
            assert len(found) >= 28, case
        else:
            found = dict([pair async for pair in journal.records("t", Trajectory)])
            await journal.aclose()
            assert len(found) >= 29, case
        assert found == {key: Trajectory((Message("user", text(key.index or 0)),)) for key in found}, case
    return noticed


def flip_anywhere(draw: random.Random, data: bytearray) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def flip_header(draw: random.Random, data: bytearray) -> None:
    data[draw.randrange(32)] ^= 1 << draw.randrange(8)


async def test_a_damaged_log_is_noticed_and_the_rest_recovered(tmp_path: Path) -> None:
    assert await examine_logs(tmp_path, flip_anywhere, range(60)) > 40
    (tmp_path / "journal.db").unlink()
    assert await examine_logs(tmp_path, flip_header, range(30)) > 20


@pytest.mark.nightly
@pytest.mark.timeout(3_000)
async def test_a_damaged_log_is_noticed_and_the_rest_recovered_in_full(tmp_path: Path) -> None:
    assert await examine_logs(tmp_path, flip_anywhere, range(1_000, 11_000)) > 7_000


async def check(good: Path, flips: range, cuts: range, sectors: range) -> None:
    seen = await examine(good, flip, flips)
    assert seen["noticed"] > seen["harmless"] / 4  # much of the file holds nothing
    # A flip spoils one row, and what refers to it; nothing else may be lost.
    assert seen["recovered"] > 0.97 * seen["possible"]
    seen = await examine(good, cut, cuts)
    assert seen["noticed"] > seen["harmless"]
    assert seen["recovered"] > 0.2 * seen["possible"]
    seen = await examine(good, spoil, sectors)
    assert seen["noticed"] > seen["harmless"]
    assert seen["recovered"] > 0.8 * seen["possible"]


async def test_damage_is_noticed_and_the_rest_recovered(good: Path) -> None:
    await check(good, range(900), range(50), range(50))


@pytest.mark.nightly
@pytest.mark.timeout(6_000)
async def test_damage_is_noticed_and_the_rest_recovered_in_full(good: Path) -> None:
    await check(good, range(10_000, 100_000), range(10_000, 15_000), range(10_000, 15_000))
