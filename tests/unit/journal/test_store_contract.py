"""The contract of a store, for every store there is. A further one is one more line in `KINDS`."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal import Journal, MemoryStore, digest_of
from tfgrpo.keys import Key
from tfgrpo.protocols import Effect, Known, LeftOpen, Store, Ticket
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
    ToolRequest,
    ToolResult,
    Trajectory,
    Usage,
)

REQUEST = ModelRequest((Message("system", "s" * 3_000), Message("user", "q")), n=2, temperature=0.7)
OTHER = ModelRequest((Message("user", "something else"),))
TOOL = ToolRequest("python", {"code": "1 + 1", "role": "@"})
COST = Usage(1, 100, 80, 20, 0.25)
REPLY = ModelReply((Choice("a"), Choice("b")), COST, "m")
FAULT = Fault(FaultKind.MODEL, "ServerError", "503", retryable=True)

ATTEMPT = Key("practice", 1, task="t1", index=0)
CALL = ATTEMPT.do("model", "abc", "0")
ALONE = Key("ask", index=7)


class Kind(Protocol):
    """Makes stores of one kind."""

    async def create(self, header: dict[str, Any]) -> Store: ...

    async def reopen(self, store: Any) -> Store: ...


class Journals:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.db"

    async def create(self, header: dict[str, Any]) -> Store:
        return await Journal.create(self._path, header)

    async def reopen(self, store: Any) -> Store:
        await store.aclose()
        return await Journal.open(self._path)


class Memories:
    def __init__(self, folder: Path) -> None:
        pass

    async def create(self, header: dict[str, Any]) -> Store:
        return MemoryStore(header)

    async def reopen(self, store: Any) -> Store:
        await store.aclose()
        reopened: Store = store.reopened()
        return reopened


KINDS: list[Callable[[Path], Kind]] = [Journals, Memories]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    made: Kind = request.param(tmp_path)
    return made


def effect(key: Key = CALL, request: Any = REQUEST, kind: EffectKind = EffectKind.MODEL) -> Effect:
    return Effect(key, kind, Role.ROLLOUT, digest_of(request), request)


async def intend(store: Store, key: Key = CALL, request: Any = REQUEST) -> Ticket:
    [ticket] = await store.intend([effect(key, request)])
    return ticket


async def pay(store: Store, key: Key = CALL, request: Any = REQUEST) -> None:
    await store.complete(await intend(store, key, request), REPLY, COST)


# --- effects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [CALL, ALONE])
async def test_a_completed_effect_is_found_now_and_by_the_next_engine(kind: Kind, key: Key) -> None:
    store = await kind.create({"seed": 1, "name": "tickets"})
    assert await store.find(key, ModelReply) is None
    ticket = await intend(store, key)
    assert ticket.attempt == 0
    assert await store.find(key, ModelReply) == Known(0, EffectStatus.OPEN, digest_of(REQUEST))
    await store.complete(ticket, REPLY, COST)
    known = Known(0, EffectStatus.COMPLETED, digest_of(REQUEST), REPLY, COST)
    assert await store.find(key, ModelReply) == known
    store = await kind.reopen(store)
    assert store.header == {"seed": 1, "name": "tickets"}
    assert await store.find(key, ModelReply) == known
    assert store.usage() == {Role.ROLLOUT: COST}
    await store.aclose()


@pytest.mark.parametrize("key", [CALL, ALONE])
async def test_a_failed_attempt_is_followed_by_the_next(kind: Kind, key: Key) -> None:
    store = await kind.create({})
    ticket = await intend(store, key)
    await store.fail(ticket, FAULT, maybe_paid=True, usage=Usage(1, 7))
    known = Known(0, EffectStatus.FAILED, digest_of(REQUEST), None, Usage(1, 7), FAULT)
    assert await store.find(key, ModelReply) == known
    store = await kind.reopen(store)
    assert await store.find(key, ModelReply) == known
    with pytest.raises(JournalMismatchError, match="request"):
        await intend(store, key, OTHER)
    ticket = await intend(store, key)
    assert ticket.attempt == 1
    await store.complete(ticket, REPLY, COST)
    found = await store.find(key, ModelReply)
    assert found is not None
    assert (found.attempt, found.result) == (1, REPLY)
    assert store.usage() == {Role.ROLLOUT: COST + Usage(1, 7)}
    await store.aclose()


@pytest.mark.parametrize("key", [CALL, ALONE])
@pytest.mark.parametrize("reopen", [False, True])
async def test_a_completed_effect_is_never_intended_again(kind: Kind, key: Key, reopen: bool) -> None:
    store = await kind.create({})
    ticket = await intend(store, key)
    await store.complete(ticket, REPLY, COST)
    if reopen:
        store = await kind.reopen(store)
    with pytest.raises(JournalError, match="has its outcome"):
        await intend(store, key)
    with pytest.raises(JournalError, match="has its outcome"):
        await store.intend([effect(ATTEMPT.do("other")), effect(key)])
    assert await store.find(ATTEMPT.do("other"), ModelReply) is None
    with pytest.raises(JournalError, match="is not open"):
        await store.complete(ticket, REPLY, COST)
    with pytest.raises(JournalError, match="is not open"):
        await store.fail(Ticket(CALL, 0, 99), FAULT, maybe_paid=False)
    assert store.usage() == {Role.ROLLOUT: COST}
    await store.aclose()


async def test_effects_that_are_sent_together_are_intended_together(kind: Kind) -> None:
    store = await kind.create({})
    assert await store.intend([]) == []
    keys = [Key("practice", 1, task="t1", index=index).do("model", "x", "0") for index in range(5)]
    tickets = await store.intend([effect(key) for key in keys])
    assert [ticket.key for ticket in tickets] == keys
    with pytest.raises(JournalError, match="twice"):
        await store.intend([effect(ALONE), effect(ALONE)])
    assert await store.find(ALONE, ModelReply) is None
    for ticket in tickets[::-1]:
        await store.complete(ticket, REPLY, COST)
    assert store.usage()[Role.ROLLOUT].calls == 5
    await store.aclose()


async def test_an_effect_beside_its_own_inside_is_known(kind: Kind) -> None:
    """A key may be an effect by itself and the owner of others."""
    store = await kind.create({})
    await pay(store, ALONE)
    await intend(store, ALONE.do("judge"))
    with pytest.raises(JournalError, match="has its outcome"):
        await intend(store, ALONE)
    found = await store.find(ALONE, ModelReply)
    assert found is not None
    assert found.result == REPLY
    await store.aclose()


async def test_effects_of_every_kind_come_back(kind: Kind) -> None:
    store = await kind.create({})
    for number, which in enumerate(EffectKind):
        key = ATTEMPT.do(which.value, str(number))
        [ticket] = await store.intend([effect(key, TOOL, which)])
        await store.complete(ticket, ToolResult(f"{number}"), Usage())
    store = await kind.reopen(store)
    for number, which in enumerate(EffectKind):
        known = await store.find(ATTEMPT.do(which.value, str(number)), ToolResult)
        assert known is not None
        assert known.result == ToolResult(f"{number}")
    await store.aclose()


@pytest.mark.parametrize(
    "usage", [Usage(output_tokens=-1), Usage(input_tokens=10**30), Usage(usd=float("nan"))]
)
async def test_an_impossible_usage_is_refused_and_breaks_nothing(kind: Kind, usage: Usage) -> None:
    store = await kind.create({})
    ticket = await intend(store)
    with pytest.raises(JournalError, match="cannot have cost"):
        await store.complete(ticket, REPLY, usage)
    await store.complete(ticket, REPLY, COST)
    await store.aclose()


async def test_text_without_an_encoding_is_refused_and_breaks_nothing(kind: Kind) -> None:
    store = await kind.create({})
    bad = ModelRequest((Message("system", "s" * 4_000), Message("user", "\ud800" * 300)))
    with pytest.raises(JournalError, match="cannot be journaled"):
        await store.intend([Effect(CALL, EffectKind.MODEL, Role.ROLLOUT, b"d" * 32, bad)])
    good = ModelRequest((Message("system", "s" * 4_000), Message("user", "?")))
    ticket = await intend(store, CALL, good)
    with pytest.raises(JournalError, match="cannot be journaled"):
        await store.complete(ticket, ModelReply((Choice("\ud800"),), COST), COST)
    store = await kind.reopen(store)
    assert [opened.request async for opened in store.left_open()] == [good]
    await store.aclose()


async def test_attempts_left_open_are_told_to_the_next_engine(kind: Kind) -> None:
    store = await kind.create({})
    await intend(store, CALL)
    ticket = await intend(store, CALL)
    await store.intend([Effect(ALONE, EffectKind.TOOL, Role.JUDGE, digest_of(TOOL), TOOL)])
    assert store.open_intents() == 3
    await store.complete(ticket, REPLY, COST)
    assert [opened async for opened in store.left_open()] == []
    assert store.open_intents() == 2
    store = await kind.reopen(store)
    assert store.open_intents() == 2
    expected = [
        LeftOpen(CALL, EffectKind.MODEL, Role.ROLLOUT, REQUEST),
        LeftOpen(ALONE, EffectKind.TOOL, Role.JUDGE, TOOL),
    ]
    assert [opened async for opened in store.left_open()] == expected
    ticket = Ticket(ALONE, 0, ticket.row)
    with pytest.raises(JournalError, match="is not open"):
        await store.complete(ticket, REPLY, COST)
    [again] = await store.intend([Effect(ALONE, EffectKind.TOOL, Role.JUDGE, digest_of(TOOL), TOOL)])
    assert again.attempt == 1
    await store.aclose()


async def test_what_an_earlier_engine_did_for_an_owner_is_told(kind: Kind) -> None:
    store = await kind.create({})
    first, second = ATTEMPT.do("model", "a", "0"), ATTEMPT.do("model", "b", "0")
    await pay(store, first)
    await pay(store, second)
    await intend(store, ATTEMPT.do("model", "c", "0"))
    assert list(store.done(ATTEMPT)) == []
    store = await kind.reopen(store)
    assert list(store.done(ATTEMPT)) == [first, second]
    await pay(store, ATTEMPT.do("model", "d", "0"))
    assert list(store.done(ATTEMPT)) == [first, second]
    await store.record("rollout", ATTEMPT, Usage(1))
    assert list(store.done(ATTEMPT)) == []
    await store.aclose()


# --- records ---------------------------------------------------------------------------------------------


async def test_records_come_back_in_the_order_of_their_keys(kind: Kind) -> None:
    keys = [Key("practice", step, task=task) for step in (3, 1, 12) for task in ("b", "ä", "a", "c%_*")]
    store = await kind.create({})
    for number, key in enumerate(keys):
        await store.record("usage", key, Usage(number))
    await store.record("other", keys[0], Usage(99))
    for _ in range(2):
        found = [pair async for pair in store.records("usage", Usage)]
        assert found == sorted((key, Usage(number)) for number, key in enumerate(keys))
        third = [key async for key, _ in store.records("usage", Usage, "practice/step=0003/")]
        assert third == sorted(keys[:4])
        assert [key async for key, _ in store.records("usage", Usage, "nothing")] == []
        assert await store.get("other", keys[0], Usage) == Usage(99)
        assert await store.get("other", keys[1], Usage) is None
        assert await store.get("never", keys[1], Usage) is None
        store = await kind.reopen(store)
    await store.aclose()


@pytest.mark.parametrize("reopen", [False, True])
async def test_the_same_again_is_a_no_op_and_another_value_a_mismatch(kind: Kind, reopen: bool) -> None:
    value = Trajectory((Message("user", "q" * 500),))
    store = await kind.create({})
    await store.record("t", ATTEMPT, value)
    if reopen:
        store = await kind.reopen(store)
    await store.record("t", ATTEMPT, Trajectory((Message("user", "q" * 500),)))
    with pytest.raises(JournalMismatchError, match=r"(with|has) another value"):
        await store.record("t", ATTEMPT, Trajectory(()))
    assert await store.get("t", ATTEMPT, Trajectory) == value
    with pytest.raises(JournalError):
        await store.get("t", ATTEMPT, Usage)
    await store.aclose()


async def test_the_same_record_twice_at_once_is_one(kind: Kind) -> None:
    store = await kind.create({})
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(store.record, "usage", ATTEMPT, Usage(1))
    assert [pair async for pair in store.records("usage", Usage)] == [(ATTEMPT, Usage(1))]
    await store.aclose()


@pytest.mark.parametrize("reopen", [False, True])
@pytest.mark.parametrize("ends", [None, Key("distill", 1, task="t1")])
async def test_a_terminal_record_closes_its_owner(kind: Kind, reopen: bool, ends: Key | None) -> None:
    """Its effects may be forgotten, so nothing can be asked for it again: it would be paid twice."""
    store = await kind.create({})
    owner = ATTEMPT if ends is None else ends
    key, other = owner.do("model", "x", "0"), Key("practice", 1, task="t1", index=1).do("model", "x", "0")
    late = await intend(store, owner.do("late"))
    await pay(store, key)
    await store.record("rollout", ATTEMPT, Usage(1), ends=ends)
    await pay(store, other)
    if reopen:
        store = await kind.reopen(store)
    else:  # the answer to what was sent before is still kept
        await store.complete(late, REPLY, COST)
        assert store.usage()[Role.ROLLOUT].calls == 3
    assert await store.find(key, ModelReply) is None
    assert await store.get("rollout", ATTEMPT, Usage) == Usage(1)
    with pytest.raises(JournalError, match="has its terminal record"):
        await intend(store, key)
    with pytest.raises(JournalError, match="has its terminal record"):
        await intend(store, owner.do("never asked"))
    found = await store.find(other, ModelReply)
    assert found is not None
    if ends is not None:
        await intend(store, ATTEMPT.do("still open"))
    await store.aclose()


# --- cancelling ------------------------------------------------------------------------------------------


async def cancelled(work: Callable[[], Awaitable[Any]]) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await work()
    assert scope.cancelled_caught


async def test_cancelling_the_wait_does_not_undo_the_write(kind: Kind) -> None:
    store = await kind.create({})
    ticket = await intend(store)
    await cancelled(lambda: store.complete(ticket, REPLY, COST))
    await cancelled(lambda: store.record("usage", ALONE, Usage(3)))
    await intend(store, Key("ask", index=8), OTHER)
    found = await store.find(CALL, ModelReply)
    assert found is not None
    assert found.result == REPLY
    assert await store.get("usage", ALONE, Usage) == Usage(3)
    await store.aclose()


async def test_an_intent_that_is_cancelled_before_it_starts_writes_nothing(kind: Kind) -> None:
    store = await kind.create({})
    await cancelled(lambda: intend(store))
    assert await store.find(CALL, ModelReply) is None
    await store.aclose()


async def test_a_closed_store_says_so(kind: Kind) -> None:
    store = await kind.create({})
    await store.aclose()
    await store.aclose()
    with pytest.raises(JournalError, match="is closed"):
        await store.record("usage", ALONE, Usage())
    with pytest.raises(JournalError, match="is closed"):
        await intend(store)
    with pytest.raises(JournalError, match="is closed"):
        await store.ready()


# --- laws ------------------------------------------------------------------------------------------------

OWNERS = [Key("practice", 1, task="t1", index=0), Key("practice", 1, task="t1", index=1)]
KEYS = [OWNERS[0].do("a"), OWNERS[0].do("b"), OWNERS[1].do("a"), Key("ask", index=0), OWNERS[0]]

steps = st.lists(
    st.tuples(
        st.sampled_from(["intend", "intend", "complete", "complete", "fail", "record", "reopen"]),
        st.integers(0, len(KEYS) - 1),
        st.booleans(),
        st.booleans(),
    ),
    max_size=30,
)


class Model:
    """What a store has to hold, said plainly."""

    def __init__(self) -> None:
        self.status: dict[Key, EffectStatus] = {}
        self.attempts: dict[Key, int] = {}
        self.asked: dict[Key, bool] = {}
        self.tickets: dict[Key, Ticket] = {}
        self.records: dict[Key, int] = {}
        self.paid = 0

    def refused(self, action: str, key: Key, other: bool) -> type[JournalError] | None:
        if action == "intend":
            if key.owner in self.records:
                return JournalError
            if key in self.asked and self.asked[key] != other:
                return JournalMismatchError
            return JournalError if self.status.get(key) is EffectStatus.COMPLETED else None
        return None if key in self.tickets else JournalError


@pytest.mark.parametrize("make", KINDS)
@settings(max_examples=25)
@given(steps=steps)
def test_a_store_agrees_with_its_model(
    make: Callable[[Path], Kind], steps: list[tuple[str, int, bool, bool]]
) -> None:
    """Completed is never lost and never done twice; other digests are refused; records never change.

    Some of the calls are cancelled as they wait: they are done all the same, or not begun.
    """

    async def act(store: Store, model: Model, action: str, key: Key, other: bool) -> None:
        match action:
            case "intend":
                model.tickets[key] = await intend(store, key, OTHER if other else REQUEST)
            case "complete":
                await store.complete(
                    model.tickets[key] if key in model.tickets else Ticket(key, 0, 0), REPLY, COST
                )
            case "fail":
                ticket = model.tickets[key] if key in model.tickets else Ticket(key, 0, 0)
                await store.fail(ticket, FAULT, maybe_paid=True)

    async def run(folder: Path) -> None:
        kind, model = make(folder), Model()
        store = await kind.create({})
        for action, number, other, cut in steps:
            key, error = KEYS[number], None
            if action == "reopen":
                store = await kind.reopen(store)
                model.tickets.clear()
            elif action == "record":
                owner, value = key.owner, 1 + other
                if model.records.get(owner, value) != value:
                    with pytest.raises(JournalMismatchError):
                        await store.record("r", owner, Usage(value))
                elif cut:
                    await cancelled(lambda: store.record("r", owner, Usage(value)))  # noqa: B023
                    await store.record("flush", Key("flush"), Usage())
                else:
                    await store.record("r", owner, Usage(value))
                model.records.setdefault(owner, value)
            elif (error := model.refused(action, key, other)) is not None:
                with pytest.raises(error):
                    await act(store, model, action, key, other)
            elif cut and action != "intend":
                await cancelled(lambda: act(store, model, action, key, other))  # noqa: B023
                await store.record("flush", Key("flush"), Usage())
            else:
                await act(store, model, action, key, other)
                if action == "intend":
                    assert model.tickets[key].attempt == model.attempts.get(key, -1) + 1
                    model.attempts[key] = model.tickets[key].attempt
                    model.asked[key] = other
                    model.status[key] = EffectStatus.OPEN
            if error is None and action in ("complete", "fail"):
                del model.tickets[key]
                model.status[key] = EffectStatus.COMPLETED if action == "complete" else EffectStatus.FAILED
                model.paid += action == "complete"
            await check(store, model)
        await store.aclose()

    async def check(store: Store, model: Model) -> None:
        for key in KEYS:
            known = await store.find(key, ModelReply)
            if known is None:
                assert key not in model.status or key.owner in model.records
            else:
                assert (known.attempt, known.status) == (model.attempts[key], model.status[key])
                assert known.result == (REPLY if known.status is EffectStatus.COMPLETED else None)
                assert known.fault == (FAULT if known.status is EffectStatus.FAILED else None)
        for owner in {key.owner for key in KEYS}:
            value = await store.get("r", owner, Usage)
            assert value == (Usage(model.records[owner]) if owner in model.records else None)
        assert store.usage().get(Role.ROLLOUT, Usage()).calls == model.paid

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(run, Path(folder))


@pytest.mark.parametrize("make", KINDS)
@settings(max_examples=15)
@given(turns=st.integers(0, 6), count=st.integers(1, 3))
def test_an_intent_cancelled_at_any_moment_is_open_or_was_never_made(
    make: Callable[[Path], Kind], turns: int, count: int
) -> None:
    async def run(folder: Path) -> None:
        kind = make(folder)
        store = await kind.create({})
        keys = [OWNERS[index % 2].do(str(index)) for index in range(count)]
        got: list[Ticket] = []

        async def work() -> None:
            got.extend(await store.intend([effect(key) for key in keys]))

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await store.record("flush", Key("flush"), Usage())
        states = {known and known.status for known in [await store.find(key, ModelReply) for key in keys]}
        assert states in ({None}, {EffectStatus.OPEN})  # all or none
        assert not got or states == {EffectStatus.OPEN}
        store = await kind.reopen(store)
        left = [opened.key async for opened in store.left_open()]
        assert left == (keys if states == {EffectStatus.OPEN} else [])
        for key in keys:  # and it can be asked again
            await pay(store, key)
        await store.aclose()

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(run, Path(folder))
