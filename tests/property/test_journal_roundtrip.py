"""Whatever is journaled comes back equal, and the journal agrees with a plain model of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfgrpo.journal.contents import Contents

from tfgrpo.errors import JournalError, JournalMismatchError
from tfgrpo.journal import CallStatus, Journal, JournalReader, request_digest
from tfgrpo.journal.codec import fold, unfold
from tfgrpo.types import (
    Choice,
    Ending,
    Fault,
    FaultKind,
    Group,
    Message,
    ModelReply,
    ModelRequest,
    PriorRef,
    Reward,
    Role,
    Rollout,
    Signal,
    StopReason,
    ToolCall,
    Trajectory,
    Usage,
)

text = st.text(max_size=40) | st.text(min_size=1, max_size=4).map(lambda part: part * 5_000)
floats = st.floats(0, 2)
counts = st.integers(0, 2**40 - 1)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), json, max_size=3)
tool_calls = st.lists(st.builds(ToolCall, id=text, name=text, arguments=text), max_size=2).map(tuple)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool", "@"]),
    content=text,
    tool_calls=tool_calls,
    tool_call_id=st.none() | text,
)
conversations = st.lists(messages, max_size=4).map(tuple)
usages = st.builds(
    Usage,
    calls=counts,
    input_tokens=counts,
    cached_tokens=counts,
    output_tokens=counts,
    usd=st.floats(0, 1e6),
)
requests = st.builds(
    ModelRequest,
    messages=conversations,
    n=st.integers(1, 8),
    temperature=st.none() | floats,
    top_p=st.none() | floats,
    max_tokens=st.none() | st.integers(1, 10**6),
    seed=st.none() | st.integers(0, 2**62),
    stop=st.lists(text, max_size=2).map(tuple),
    response_schema=st.none() | objects,
    schema_name=text,
    tools=st.lists(objects, max_size=2).map(tuple),
)
choices = st.builds(Choice, content=text, stop_reason=st.sampled_from(StopReason), tool_calls=tool_calls)
replies = st.builds(
    ModelReply, choices=st.lists(choices, max_size=3).map(tuple), usage=usages, model=st.text(max_size=9)
)
faults = st.builds(Fault, kind=st.sampled_from(FaultKind), error=text, message=text, retryable=st.booleans())
rollouts = st.builds(
    Rollout,
    task_id=text,
    index=st.integers(0, 99),
    prior=st.builds(PriorRef, version=st.integers(0, 99), digest=text),
    trajectory=st.builds(Trajectory, messages=conversations),
    ending=st.sampled_from(Ending),
    reward=st.none() | st.builds(Reward, value=st.floats(0, 1), answer=st.none() | text, detail=text),
    fault=st.none() | faults,
    started=floats,
    finished=floats,
)
groups = st.builds(
    Group,
    task_id=text,
    rollouts=st.lists(rollouts, max_size=3).map(tuple),
    signal=st.sampled_from(Signal),
)


@given(requests | rollouts | groups | conversations.map(Trajectory) | messages)
def test_folding_keeps_the_value(value: msgspec.Struct) -> None:
    contents = Contents(0)
    stored: dict[str, Message] = {}
    for _ in range(2):  # the second time, nothing is new
        body, rows = contents.store(value)
        stored |= {str(row): msgspec.json.decode(data, type=Message) for row, data in rows or ()}
        assert unfold(body, type(value), stored.__getitem__) == value
    assert rows is None


@given(rollouts, rollouts)
def test_equal_bytes_mean_equal_values(one: Rollout, other: Rollout) -> None:
    assert (fold(one) == fold(other)) == (one == other)


@given(requests, requests)
def test_the_digest_tells_requests_apart(one: ModelRequest, other: ModelRequest) -> None:
    assert (request_digest(one) == request_digest(other)) == (one == other)
    decoded = msgspec.json.decode(msgspec.json.encode(one), type=ModelRequest)
    assert request_digest(decoded) == request_digest(one)


@settings(max_examples=15)
@given(st.lists(st.tuples(text, requests, replies), max_size=4, unique_by=lambda item: item[0]), groups)
def test_calls_and_records_come_back_equal(
    calls: list[tuple[str, ModelRequest, ModelReply]], group: Group
) -> None:
    async def write(path: Path) -> None:
        async with Journal.create(path, {"seed": 7}) as journal:
            for key, request, reply in calls:
                await journal.intend(key, 0, Role.ROLLOUT, request)
                await journal.complete(key, 0, reply)
            await journal.record("group", group.task_id, group)

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.db"
        anyio.run(write, path)
        with JournalReader(path) as reader:
            assert reader.header == {"seed": 7}
            assert reader.records("group", Group) == {group.task_id: group}
            for key, request, reply in calls:
                assert reader.request(key, 0) == request
                assert reader.reply(key, 0) == reply
            assert [summary.key for summary in reader.calls()] == [key for key, _, _ in calls]


steps = st.lists(
    st.tuples(
        st.sampled_from(["intend", "complete", "fail", "reopen"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=25)
@given(steps)
def test_the_journal_agrees_with_its_model(steps: list[tuple[str, str, int, bool]]) -> None:
    """Attempts count upwards with the same request, each ends once, and nothing follows a completion."""
    reply = ModelReply((Choice("yes"),), Usage(calls=1))
    fault = Fault(FaultKind.MODEL, "ServerError", "503")
    model: dict[str, tuple[int, CallStatus, bool]] = {}
    opened = 0

    def allowed(action: str, key: str, attempt: int) -> bool:
        newest, state, _ = model.get(key, (-1, CallStatus.FAILED, False))
        if action == "intend":
            return attempt > newest and state is not CallStatus.COMPLETED
        return attempt == newest and state is CallStatus.OPEN

    async def act(journal: Journal, action: str, key: str, attempt: int, other: bool) -> None:
        match action:
            case "intend":
                request = ModelRequest((Message("user", f"{key}{other}"),))
                await journal.intend(key, attempt, Role.JUDGE, request)
            case "complete":
                await journal.complete(key, attempt, reply)
            case "fail":
                await journal.fail(key, attempt, fault, maybe_paid=True)

    async def run(path: Path) -> None:
        nonlocal opened
        journal = Journal.create(path, {})
        try:
            for action, key, attempt, other in steps:
                if action == "reopen":
                    journal.close()
                    journal = Journal.open(path)
                elif action == "intend" and key in model and model[key][2] != other:
                    with pytest.raises(JournalMismatchError):
                        await act(journal, action, key, attempt, other)
                elif not allowed(action, key, attempt):
                    with pytest.raises(JournalError):
                        await act(journal, action, key, attempt, other)
                else:
                    await act(journal, action, key, attempt, other)
                    state = {"complete": CallStatus.COMPLETED, "fail": CallStatus.FAILED}.get(action)
                    opened += state is None
                    opened -= state is not None
                    sent = model[key][2] if state else other
                    model[key] = (attempt, state or CallStatus.OPEN, sent)
                for name in ("a", "b"):
                    last = journal.last(name)
                    assert (last and (last.attempt, last.state)) == (
                        model[name][:2] if name in model else None
                    )
                    if last:
                        assert last.reply == (reply if last.state is CallStatus.COMPLETED else None)
                        assert last.fault == (fault if last.state is CallStatus.FAILED else None)
            assert journal.reader.open_intents() == opened
        finally:
            journal.close()

    with tempfile.TemporaryDirectory() as directory:
        anyio.run(run, Path(directory) / "journal.db")
