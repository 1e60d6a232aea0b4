"""Terminal records: written once, read in the order of their keys, messages shared."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.types import Ending, Group, Message, PriorRef, Reward, Rollout, Signal, Trajectory, Usage


def rollout(index: int, *messages: Message, reward: float = 1.0) -> Rollout:
    return Rollout("t1", index, PriorRef(0, ""), Trajectory(messages), Ending.COMPLETED, Reward(reward))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_records_come_back_by_key_and_prefix(path: Path) -> None:
    keys = ["b/2", "a/10", "a/1", "ä/1", "b/", "a", "c%_*"]
    async with Journal.create(path, {}) as journal:
        for n, key in enumerate(keys):
            await journal.record("usage", key, Usage(n))
        await journal.record("other", "a/1", Usage(99))
        everything = journal.records("usage", Usage)
        assert list(everything) == sorted(keys)
        assert everything == {key: Usage(n) for n, key in enumerate(keys)}
        assert list(journal.records("usage", Usage, "a")) == ["a", "a/1", "a/10"]
        assert list(journal.records("usage", Usage, "c%")) == ["c%_*"]
        assert journal.records("usage", Usage, "zz") == {}
        assert journal.get("other", "a/1", Usage) == Usage(99)
        assert journal.get("other", "b/2", Usage) is None


@pytest.mark.parametrize("reopen", [False, True])
async def test_the_same_again_is_a_no_op_and_another_value_a_mismatch(path: Path, reopen: bool) -> None:
    first = rollout(0, Message("user", "q"))
    journal = Journal.create(path, {})
    try:
        await journal.record("rollout", "r", first)
        if reopen:
            journal.close()
            journal = Journal.open(path)
        before = journal.commits
        await journal.record("rollout", "r", rollout(0, Message("user", "q")))
        assert journal.commits == before
        with pytest.raises(JournalMismatchError, match="rollout 'r'"):
            await journal.record("rollout", "r", rollout(0, Message("user", "Q")))
        assert journal.records("rollout", Rollout) == {"r": first}
        await journal.record("rollout", "s", first)
    finally:
        journal.close()


async def test_the_same_record_twice_at_once_is_stored_once(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(journal.record, "usage", "u", Usage(1))
        assert journal.records("usage", Usage) == {"u": Usage(1)}


def test_rollouts_that_share_a_message_take_little_space(path: Path) -> None:
    """1,000 rollouts with the same 20 KB system message, of text that does not compress below 10 KB."""
    letters = random.Random(7)
    shared = Message("system", "".join(letters.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000)))
    made = [rollout(n, shared, Message("assistant", f"answer {n}")) for n in range(1_000)]
    whole = Group("t1", tuple(made[:5]), Signal.MIXED)

    async def write() -> None:
        async with Journal.create(path, {}) as journal, anyio.create_task_group() as group:
            for value in made:
                group.start_soon(journal.record, "rollout", f"{value.index:04}", value)
            group.start_soon(journal.record, "group", "g", whole)

    anyio.run(write)
    assert path.stat().st_size < 1_000 * 800
    with JournalReader(path) as reader:
        found = reader.records("rollout", Rollout)
        assert list(found.values()) == made
        first, second = found["0000"], found["0001"]
        assert first.trajectory.messages[0] is second.trajectory.messages[0]
        assert reader.get("group", "g", Group) == whole


async def test_many_writers_share_few_commits(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        async with anyio.create_task_group() as group:
            for n in range(500):
                group.start_soon(journal.record, "usage", str(n), Usage(n))
        assert 1 <= journal.commits <= 50
        assert len(journal.records("usage", Usage)) == 500


async def test_reading_as_another_type_is_a_journal_error(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        await journal.record("usage", "u", Usage(1))
        with pytest.raises(JournalError, match=r"journal\.db is damaged"):
            journal.get("usage", "u", Rollout)
