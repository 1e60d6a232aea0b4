"""Salvage: a sound journal comes back whole, a damaged one without what is damaged, and it can be gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.ledger import intend, pay

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader, Salvage, salvage
from tfgrpo.keys import Key
from tfgrpo.types import (
    Choice,
    EffectStatus,
    Fault,
    FaultKind,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    Trajectory,
    Usage,
)

LARGE = Message("user", "".join(chr(0x4E00 + 7 * n % 20_000) for n in range(7_000)))
REQUEST = ModelRequest((Message("system", "s" * 500), LARGE))
REPLY = ModelReply((Choice("a" * 20_000),), Usage(1, 100, 80, 20, 0.25), "m")


A, B, R = Key("a"), Key("practice", 1, task="b", index=0).do("model"), Key("r")


async def build(path: Path) -> None:
    async with await Journal.create(path, {"seed": 4}) as journal:
        ticket = await intend(journal, A, REQUEST)
        await journal.fail(ticket, Fault(FaultKind.MODEL, "ServerError", "503"), maybe_paid=False)
        ticket = await intend(journal, A, REQUEST)
        await intend(journal, B, REQUEST, Role.JUDGE)
        await journal.complete(ticket, REPLY, REPLY.usage)
        await journal.record("t", R, Trajectory((LARGE,)))


async def test_a_sound_journal_comes_back_whole(tmp_path: Path) -> None:
    path, target = tmp_path / "journal.db", tmp_path / "new.db"
    await build(path)
    assert salvage(path, target) == Salvage(calls=3, open_calls=1, records=1, lost=0)
    with JournalReader(path) as one, JournalReader(target) as other:
        assert one.header == other.header == {"seed": 4}
        assert list(one.calls()) == list(other.calls())
        assert other.request(A, 1, ModelRequest) == REQUEST
        assert other.result(A, 1, ModelReply) == REPLY
        assert other.get("t", R, Trajectory) == Trajectory((LARGE,))


async def test_a_lost_reply_opens_its_call_again(tmp_path: Path) -> None:
    path, target = tmp_path / "journal.db", tmp_path / "new.db"
    await build(path)
    with JournalReader(path) as reader:
        stored = reader._rows._query("SELECT body FROM bodies WHERE id = 6")[0][0]
    content = bytearray(path.read_bytes())
    content[content.index(stored) + 30] ^= 1
    path.write_bytes(content)
    assert salvage(path, target) == Salvage(calls=3, open_calls=2, records=1, lost=1)
    async with await Journal.open(target) as journal:
        known = await journal.find(A, ModelReply)
        assert known is not None
        assert known.status is EffectStatus.OPEN
        await pay(journal, A, REQUEST, REPLY)


async def test_a_lost_message_takes_along_what_refers_to_it(tmp_path: Path) -> None:
    path, target = tmp_path / "journal.db", tmp_path / "new.db"
    await build(path)
    with JournalReader(path) as reader:
        stored = reader._rows._query("SELECT body FROM blobs WHERE id = 2")[0][0]
    content = bytearray(path.read_bytes())
    content[content.index(stored[:200]) + 100] ^= 1
    path.write_bytes(content)
    report = salvage(path, target)
    assert (report.calls, report.records) == (0, 0)
    assert report.lost == 6  # three intents, two outcomes, one record; the message itself stood for them


async def test_what_cannot_be_salvaged_is_named(tmp_path: Path) -> None:
    path, target = tmp_path / "journal.db", tmp_path / "new.db"
    with pytest.raises(JournalError, match=r"journal\.db cannot be read"):
        salvage(path, target)
    path.write_bytes(b"# not a database\n" * 4_000)
    with pytest.raises(JournalError, match="Nothing of a journal is left"):
        salvage(path, target)
    path.unlink()
    await build(path)
    target.touch()
    with pytest.raises(JournalError, match="exists already"):
        salvage(path, target)
