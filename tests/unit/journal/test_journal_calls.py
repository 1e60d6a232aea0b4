"""Calls: what intends, completes and fails do, what is refused, and what cancelling leaves behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import anyio
import pytest

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal import CallState, CallStatus, CallSummary, Journal, JournalReader, request_digest
from tfgrpo.types import Choice, Fault, FaultKind, Message, ModelReply, ModelRequest, Role, Usage

REQUEST = ModelRequest((Message("system", "s" * 3_000), Message("user", "q")), n=2, temperature=0.7)
OTHER = ModelRequest((Message("user", "something else"),))
REPLY = ModelReply((Choice("a"), Choice("b")), Usage(1, 100, 80, 20, 0.25), "m")
FAULT = Fault(FaultKind.MODEL, "ServerError", "503", retryable=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_a_completed_call_is_found_after_reopening(path: Path) -> None:
    async with Journal.create(path, {"seed": 1, "name": "tickets"}) as journal:
        assert journal.last("k") is None
        await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        assert journal.last("k") == CallState(0, CallStatus.OPEN, request_digest(REQUEST))
        await journal.complete("k", 0, REPLY)
    async with Journal.open(path) as journal:
        assert journal.header == {"seed": 1, "name": "tickets"}
        state = CallState(0, CallStatus.COMPLETED, request_digest(REQUEST), REPLY)
        assert journal.last("k", REQUEST) == state


async def test_a_failed_attempt_is_followed_by_the_next(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        await journal.intend("k", 0, Role.DISTILLER, REQUEST)
        await journal.fail("k", 0, FAULT, maybe_paid=True)
        state = CallState(0, CallStatus.FAILED, request_digest(REQUEST), fault=FAULT)
        assert journal.last("k") == state
        await journal.intend("k", 1, Role.DISTILLER, REQUEST)
        await journal.complete("k", 1, REPLY)
    async with Journal.open(path) as journal:
        last = journal.last("k")
        assert last is not None
        assert (last.attempt, last.reply) == (1, REPLY)
        assert journal.reader.reply("k", 0) is None


async def test_another_request_under_the_same_key_is_a_mismatch(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        await journal.fail("k", 0, FAULT, maybe_paid=False)
        with pytest.raises(JournalMismatchError, match="'k'"):
            await journal.intend("k", 1, Role.ROLLOUT, OTHER)
        with pytest.raises(JournalMismatchError, match="same run"):
            journal.last("k", OTHER)
        assert journal.last("k", REQUEST) is not None


async def test_a_completed_call_is_never_intended_again(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        await journal.complete("k", 0, REPLY)
        with pytest.raises(JournalError, match="has its outcome"):
            await journal.intend("k", 1, Role.ROLLOUT, REQUEST)
        with pytest.raises(JournalError, match="is not open"):
            await journal.complete("k", 0, REPLY)
        with pytest.raises(JournalError, match="is not open"):
            await journal.fail("never", 0, FAULT, maybe_paid=False)
        assert journal.reader.usage_by_role() == {Role.ROLLOUT: REPLY.usage}


async def test_two_outcomes_at_once_are_refused(path: Path) -> None:
    refused: list[str] = []

    async def complete() -> None:
        try:
            await journal.complete("k", 0, REPLY)
        except JournalError as error:
            refused.append(error.message)

    async with Journal.create(path, {}) as journal:
        await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        async with anyio.create_task_group() as group:
            group.start_soon(complete)
            group.start_soon(complete)
        assert len(refused) == 1
        assert journal.reader.reply("k", 0) == REPLY


@pytest.mark.parametrize(
    "usage", [Usage(output_tokens=-1), Usage(input_tokens=10**30), Usage(usd=float("nan"))]
)
async def test_an_impossible_usage_is_refused_and_breaks_nothing(path: Path, usage: Usage) -> None:
    async with Journal.create(path, {}) as journal:
        await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        with pytest.raises(JournalError, match="cannot have cost"):
            await journal.complete("k", 0, ModelReply((), usage))
        await journal.complete("k", 0, REPLY)


async def test_text_without_an_encoding_is_refused_and_breaks_nothing(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        with pytest.raises(JournalError, match="cannot be journaled"):
            await journal.intend("\ud800", 0, Role.ROLLOUT, REQUEST)
        await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        with pytest.raises(JournalError, match="cannot be journaled"):
            await journal.complete("k", 0, ModelReply((Choice("\ud800"),), Usage()))
        await journal.complete("k", 0, REPLY)


async def test_cancelling_the_wait_does_not_undo_the_write(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.complete("k", 0, REPLY)
        assert scope.cancelled_caught
        await journal.intend("later", 0, Role.ROLLOUT, OTHER)
        last = journal.last("k")
        assert last is not None
        assert last.reply == REPLY


async def test_an_intent_that_is_cancelled_before_it_starts_writes_nothing(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.intend("k", 0, Role.ROLLOUT, REQUEST)
        assert scope.cancelled_caught
        assert journal.last("k") is None


async def test_a_cancelled_block_closes_the_journal(path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with Journal.create(path, {}):
            scope.cancel()
            await anyio.sleep_forever()
    async with Journal.open(path) as journal:
        assert journal.header == {}


async def test_the_reader_sums_up_a_live_journal(path: Path) -> None:
    clock = itertools.count(1_000.0)
    async with Journal.create(path, {"seed": 3}, clock=lambda: next(clock)) as journal:
        await journal.intend("a", 0, Role.ROLLOUT, REQUEST)
        await journal.complete("a", 0, REPLY)
        await journal.intend("b", 0, Role.JUDGE, OTHER)
        await journal.fail("b", 0, FAULT, maybe_paid=True, usage=Usage(1, 7))
        await journal.intend("b", 1, Role.JUDGE, OTHER)
        with JournalReader(path) as reader:
            done, failed, opened = CallStatus.COMPLETED, CallStatus.FAILED, CallStatus.OPEN
            assert list(reader.calls()) == [
                CallSummary("a", 0, Role.ROLLOUT, done, REPLY.usage, None, 1_000, 1_001, False),
                CallSummary("b", 0, Role.JUDGE, failed, Usage(1, 7), FAULT, 1_002, 1_003, True),
                CallSummary("b", 1, Role.JUDGE, opened, Usage(), None, 1_004, None, True),
            ]
            assert reader.usage_by_role() == {Role.ROLLOUT: REPLY.usage, Role.JUDGE: Usage(1, 7)}
            assert reader.faults_by_kind() == {"ServerError": 1}
            assert reader.open_intents() == 1
            assert reader.request("b", 1) == OTHER
            assert (reader.reply("a", 0), reader.reply("b", 1)) == (REPLY, None)
            with pytest.raises(JournalError, match="no attempt 2"):
                reader.request("b", 2)
            await journal.complete("b", 1, REPLY)
            assert reader.open_intents() == 0


async def test_calls_are_paged_without_loss(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfgrpo.journal.reader._PAGE", 3)
    async with Journal.create(path, {}) as journal:
        for size in range(7):
            assert [summary.key for summary in journal.reader.calls()] == [str(n) for n in range(size)]
            await journal.intend(str(size), 0, Role.ROLLOUT, OTHER)


def test_what_requests_share_is_stored_once(path: Path) -> None:
    shared = Message("system", "".join(chr(0x4E00 + 7 * n % 20_000) for n in range(7_000)))

    async def write() -> None:
        async with Journal.create(path, {}) as journal, anyio.create_task_group() as group:
            for n in range(300):
                request = ModelRequest((shared, Message("user", f"question {n}")))
                group.start_soon(journal.intend, f"k{n}", 0, Role.ROLLOUT, request)

    anyio.run(write)
    with JournalReader(path) as reader:
        assert reader.request("k7", 0).messages[0] == shared
    assert path.stat().st_size < 300 * 1_000


async def test_what_an_earlier_engine_left_open_is_known(path: Path) -> None:
    async with Journal.create(path, {}) as journal:
        await journal.intend("a", 0, Role.ROLLOUT, REQUEST)
        await journal.intend("a", 1, Role.ROLLOUT, REQUEST)
        await journal.intend("b", 0, Role.JUDGE, OTHER)
        await journal.complete("a", 1, REPLY)
        assert list(journal.left_open()) == []
    async with Journal.open(path) as journal:
        assert list(journal.left_open()) == [(Role.ROLLOUT, REQUEST), (Role.JUDGE, OTHER)]
