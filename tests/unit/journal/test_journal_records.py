"""Terminal records: written once, read in the order of their keys, messages shared."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.keys import Key
from tfgrpo.types import Ending, Group, Message, PriorRef, Reward, Rollout, Signal, Trajectory, Usage


def rollout(index: int, *messages: Message, reward: float = 1.0) -> Rollout:
    return Rollout("t1", index, PriorRef(0, ""), Trajectory(messages), Ending.COMPLETED, Reward(reward))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_the_same_again_costs_no_commit(path: Path) -> None:
    async with await Journal.create(path, {}) as journal:
        for _ in range(2):
            await journal.record("rollout", Key("r"), rollout(0, Message("user", "q")))
        assert journal.commits == 1


async def test_records_are_read_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfgrpo.journal.lookup.PAGE", 3)
    monkeypatch.setattr("tfgrpo.journal.reader._PAGE", 3)
    keys = [Key("r", index=index) for index in range(10)]
    async with await Journal.create(path, {}) as journal:
        for key in reversed(keys):
            await journal.record("usage", key, Usage(key.index or 0))
        expected = [(key, Usage(key.index or 0)) for key in keys]
        assert [pair async for pair in journal.records("usage", Usage)] == expected
        with JournalReader(path) as reader:
            assert list(reader.iterate("usage", Usage)) == expected
            assert list(reader.records("usage", Usage, "r/try=0003")) == keys[3:4]
            assert reader.get("usage", keys[2], Usage) == Usage(2)
            assert reader.get("other", keys[2], Usage) is None


def test_rollouts_that_share_a_message_take_little_space(path: Path) -> None:
    """1,000 rollouts with the same 20 KB system message, of text that does not compress below 10 KB."""
    letters = random.Random(7)
    shared = Message("system", "".join(letters.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000)))
    made = [rollout(n, shared, Message("assistant", f"answer {n}")) for n in range(1_000)]
    whole = Group("t1", tuple(made[:5]), Signal.MIXED)

    async def write() -> None:
        async with await Journal.create(path, {}) as journal, anyio.create_task_group() as group:
            for value in made:
                group.start_soon(journal.record, "rollout", Key("r", index=value.index), value)
            group.start_soon(journal.record, "group", Key("g"), whole)

    anyio.run(write)
    assert path.stat().st_size < 1_000 * 800
    with JournalReader(path) as reader:
        found = reader.records("rollout", Rollout)
        assert list(found.values()) == made
        first, second = found[Key("r", index=0)], found[Key("r", index=1)]
        assert first.trajectory.messages[0] is second.trajectory.messages[0]
        assert reader.get("group", Key("g"), Group) == whole


async def test_many_writers_share_few_commits(path: Path) -> None:
    async with await Journal.create(path, {}) as journal:
        async with anyio.create_task_group() as group:
            for n in range(500):
                group.start_soon(journal.record, "usage", Key("r", index=n), Usage(n))
        assert 1 <= journal.commits <= 50
        assert len([key async for key, _ in journal.records("usage", Usage)]) == 500


async def test_reading_as_another_type_is_a_journal_error(path: Path) -> None:
    async with await Journal.create(path, {}) as journal:
        await journal.record("usage", Key("u"), Usage(1))
        with pytest.raises(JournalError, match=r"journal\.db is damaged"):
            await journal.get("usage", Key("u"), Rollout)
