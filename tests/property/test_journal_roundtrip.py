"""Whatever is journaled comes back equal, and the journal agrees with a plain model of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger import pay

from tfgrpo.journal import Journal, JournalReader, digest_of
from tfgrpo.journal.blobs import BlobStore
from tfgrpo.journal.codec import fold, unfold
from tfgrpo.keys import Key
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
    store = BlobStore(0)
    stored: dict[str, Message] = {}
    for _ in range(2):  # the second time, nothing is new
        body, rows = store.store(value), store.take()
        stored |= {str(row): msgspec.json.decode(data, type=Message) for row, data in rows or ()}
        assert unfold(body, type(value), stored.__getitem__) == value
    assert rows is None


@given(rollouts, rollouts)
def test_equal_bytes_mean_equal_values(one: Rollout, other: Rollout) -> None:
    assert (fold(one) == fold(other)) == (one == other)


@given(requests, requests)
def test_the_digest_tells_requests_apart(one: ModelRequest, other: ModelRequest) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)
    decoded = msgspec.json.decode(msgspec.json.encode(one), type=ModelRequest)
    assert digest_of(decoded) == digest_of(one)


@settings(max_examples=15)
@given(st.lists(st.tuples(text, requests, replies), max_size=4, unique_by=lambda item: item[0]), groups)
def test_calls_and_records_come_back_equal(
    calls: list[tuple[str, ModelRequest, ModelReply]], group: Group
) -> None:
    keys = [Key("k", variant=f"{number}", task=name or None) for number, (name, _, _) in enumerate(calls)]

    async def write(path: Path) -> None:
        async with await Journal.create(path, {"seed": 7}) as journal:
            for key, (_, request, reply) in zip(keys, calls, strict=True):
                await pay(journal, key, request, reply)
            await journal.record("group", Key("group"), group)

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.db"
        anyio.run(write, path)
        with JournalReader(path) as reader:
            assert reader.header == {"seed": 7}
            assert reader.records("group", Group) == {Key("group"): group}
            for key, (_, request, reply) in zip(keys, calls, strict=True):
                assert reader.request(key, 0, ModelRequest) == request
                assert reader.result(key, 0, ModelReply) == reply
            assert [summary.key for summary in reader.calls()] == keys
