"""Effects in the file: what a reader finds, what is shared, and what cancelling leaves behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import anyio
import pytest
from tests.ledger import effect, intend, pay

from tfgrpo.errors import JournalError
from tfgrpo.journal import CallSummary, Journal, JournalReader
from tfgrpo.keys import Key
from tfgrpo.types import (
    Choice,
    EffectKind,
    EffectStatus,
    Fault,
    FaultKind,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    Usage,
)

REQUEST = ModelRequest((Message("system", "s" * 3_000), Message("user", "q")), n=2, temperature=0.7)
OTHER = ModelRequest((Message("user", "something else"),))
REPLY = ModelReply((Choice("a"), Choice("b")), Usage(1, 100, 80, 20, 0.25), "m")
FAULT = Fault(FaultKind.MODEL, "ServerError", "503", retryable=True)

A, B = Key("practice", 1, task="t", index=0).do("model", "x", "0"), Key("ask", index=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_two_outcomes_at_once_are_refused(path: Path) -> None:
    refused: list[str] = []

    async with await Journal.create(path, {}) as journal:
        ticket = await intend(journal, A, REQUEST)

        async def complete() -> None:
            try:
                await journal.complete(ticket, REPLY, REPLY.usage)
            except JournalError as error:
                refused.append(error.message)

        async with anyio.create_task_group() as group:
            group.start_soon(complete)
            group.start_soon(complete)
    assert len(refused) == 1
    with JournalReader(path) as reader:
        assert reader.result(A, 0, ModelReply) == REPLY


async def test_the_ticket_of_another_effect_ends_nothing(path: Path) -> None:
    async with await Journal.create(path, {}) as journal:
        first, second = await journal.intend([effect(A, REQUEST), effect(B, REQUEST)])
        with pytest.raises(JournalError, match="is not open"):
            await journal.complete(type(first)(A, 0, second.row), REPLY, REPLY.usage)
        await journal.complete(first, REPLY, REPLY.usage)
        await journal.complete(second, REPLY, REPLY.usage)


async def test_what_has_ended_is_not_known_before_it_is_durable(path: Path) -> None:
    async with await Journal.create(path, {}) as journal:
        ticket = await intend(journal, A, REQUEST)
        async with anyio.create_task_group() as group:
            group.start_soon(journal.complete, ticket, REPLY, REPLY.usage)
            await anyio.lowlevel.checkpoint()
            known = await journal.find(A, ModelReply)
            assert known is not None
            assert known.status is EffectStatus.OPEN
            with pytest.raises(JournalError, match=r"has its outcome|is not open"):
                await journal.complete(ticket, REPLY, REPLY.usage)


async def test_a_cancelled_block_closes_the_journal(path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with await Journal.create(path, {}):
            scope.cancel()
            await anyio.sleep_forever()
    async with await Journal.open(path) as journal:
        assert journal.header == {}


async def test_the_reader_sums_up_a_live_journal(path: Path) -> None:
    clock = itertools.count(1_000.0)
    async with await Journal.create(path, {"seed": 3}, clock=lambda: next(clock)) as journal:
        await pay(journal, A, REQUEST, REPLY)
        ticket = await intend(journal, B, OTHER, Role.JUDGE)
        await journal.fail(ticket, FAULT, maybe_paid=True, usage=Usage(1, 7))
        ticket = await intend(journal, B, OTHER, Role.JUDGE)
        with JournalReader(path) as reader:
            done, failed, opened = EffectStatus.COMPLETED, EffectStatus.FAILED, EffectStatus.OPEN
            model = EffectKind.MODEL
            assert list(reader.calls()) == [
                CallSummary(A, 0, model, Role.ROLLOUT, done, REPLY.usage, None, 1_000, 1_001, False),
                CallSummary(B, 0, model, Role.JUDGE, failed, Usage(1, 7), FAULT, 1_002, 1_003, True),
                CallSummary(B, 1, model, Role.JUDGE, opened, Usage(), None, 1_004, None, True),
            ]
            assert reader.usage_by_role() == {Role.ROLLOUT: REPLY.usage, Role.JUDGE: Usage(1, 7)}
            assert reader.faults_by_kind() == {"ServerError": 1}
            assert reader.open_intents() == 1
            assert reader.request(B, 1, ModelRequest) == OTHER
            assert (reader.result(A, 0, ModelReply), reader.result(B, 0, ModelReply)) == (REPLY, None)
            assert reader.result(B, 1, ModelReply) is None
            with pytest.raises(JournalError, match="no attempt 2"):
                reader.request(B, 2, ModelRequest)
            await journal.complete(ticket, REPLY, REPLY.usage)
            assert reader.open_intents() == 0
            assert reader.result(B, 1, ModelReply) == REPLY
            assert reader.usage_by_role()[Role.JUDGE] == REPLY.usage + Usage(1, 7)


async def test_calls_are_paged_without_loss(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfgrpo.journal.rowreader._PAGE", 3)
    async with await Journal.create(path, {}) as journal:
        with JournalReader(path) as reader:
            for size in range(7):
                assert [call.key for call in reader.calls()] == [Key("k", index=n) for n in range(size)]
                await intend(journal, Key("k", index=size), OTHER)


def test_what_requests_share_is_stored_once(path: Path) -> None:
    shared = Message("system", "".join(chr(0x4E00 + 7 * n % 20_000) for n in range(7_000)))

    async def write() -> None:
        async with await Journal.create(path, {}) as journal, anyio.create_task_group() as group:
            for n in range(300):
                request = ModelRequest((shared, Message("user", f"question {n}")))
                group.start_soon(intend, journal, Key("k", index=n), request)

    anyio.run(write)
    with JournalReader(path) as reader:
        assert reader.request(Key("k", index=7), 0, ModelRequest).messages[0] == shared
    assert path.stat().st_size < 300 * 1_000


async def test_how_long_calls_took_is_told_to_the_next_engine(path: Path) -> None:
    clock = iter([10.0, 12.0, 20.0, 21.0, 30.0, 90.0])
    async with await Journal.create(path, {}, clock=lambda: next(clock)) as journal:
        await pay(journal, A, REQUEST, REPLY)
        await pay(journal, B, REQUEST, REPLY)
        [ticket] = await journal.intend([effect(Key("tool"), OTHER, kind=EffectKind.TOOL)])
        await journal.complete(ticket, REPLY, Usage())
        assert journal.seconds_a_call() == {}
    async with await Journal.open(path) as journal:
        assert journal.seconds_a_call() == {Role.ROLLOUT: 1.5}


async def test_a_text_that_shares_a_hash_is_not_taken_for_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index knows hashes only: here all texts have the same."""
    monkeypatch.setattr("tfgrpo.journal.index.hash", lambda text: 7, raising=False)
    async with await Journal.create(path, {}) as journal:
        for turn in range(2):
            for index in range(5):
                key = Key("ask", turn, index=index)
                assert await journal.find(key, ModelReply) is None
                await pay(journal, key, REQUEST, REPLY)
                await journal.record("r", Key("r", turn, index=index), Usage(index))
                await pay(journal, Key("s", turn, index=index).do("x"), REQUEST, REPLY)
        for index in range(5):
            with pytest.raises(JournalError, match="has its outcome"):
                await intend(journal, Key("ask", 0, index=index), REQUEST)
            assert await journal.get("r", Key("r", 1, index=index), Usage) == Usage(index)
            assert await journal.get("r", Key("r", 2, index=index), Usage) is None
            await journal.record("r", Key("r", 1, index=index), Usage(index))
        assert [value.calls async for _, value in journal.records("r", Usage, "r/step=0001")] == list(
            range(5)
        )
        assert await journal.find(Key("ask", 3), ModelReply) is None
        with JournalReader(path) as reader:
            assert reader.get("r", Key("r", 1, index=3), Usage) == Usage(3)
            assert reader.result(Key("ask", 1, index=3), 0, ModelReply) == REPLY
