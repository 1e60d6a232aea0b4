"""Streams: however they are cut and whatever stands between the events, the same completion comes out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.models import wire
from tfgrpo.models.stream import StreamReader
from tfgrpo.testing.loopback import endpoint
from tfgrpo.types import Choice, StopReason, ToolCall, Usage

texts = st.text(st.characters(codec="utf-8"), max_size=12)
calls = st.builds(ToolCall, texts.filter(bool), texts.filter(bool), texts.filter(bool))
answers = st.builds(Choice, texts, st.sampled_from(StopReason), st.lists(calls, max_size=2).map(tuple))
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}


def read(body: bytes, n: int = 1, cuts: list[int] | None = None) -> wire.Completion:
    reader = StreamReader()
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts or [])})
    for start, end in pairwise(places):
        reader.feed(body[start:end])
    return reader.finish(n)


def event(*choices: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": choices} | more) + b"\n\n"


def delta(index: int = 0, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": reason}


@given(
    st.lists(answers, min_size=1, max_size=3),
    st.lists(st.integers(0, 10**6), max_size=12),
    st.booleans(),
    st.sampled_from([b"", b": keep-alive\n\n", b"\n\n\n", b"event: x\nid: 7\nretry: 10\n"]),
    st.booleans(),
)
def test_a_stream_holds_what_the_unstreamed_reply_holds(
    choices: list[Choice], cuts: list[int], crlf: bool, between: bytes, done: bool
) -> None:
    events = list(endpoint.encode_stream(choices, USAGE, "m"))
    body = between.join(events if done else events[:-1])
    if crlf:
        body = body.replace(b"\n", b"\r\n")
    whole = wire.decode_completion(wire.loads(endpoint.encode_reply(choices, USAGE, "m")))
    assert read(body, len(choices), cuts) == whole
    assert whole.usage == Usage(1, 9, 4, 2)


def test_started_with_the_first_delta_and_ended_with_done() -> None:
    reader = StreamReader()
    for piece, started, ended in [
        (b"\n\n: queued\n\n", False, False),
        (event(delta(role="assistant", content="")), False, False),
        (event(delta(content="a"))[:20], False, False),
        (event(delta(content="a"))[20:], True, False),
        (event(delta(reason="stop")), True, False),
        (b"data: [DONE]\n", True, True),
    ]:
        reader.feed(piece)
        assert (reader.started, reader.ended) == (started, ended)
    assert reader.finish(1).choices == (Choice("a"),)


@pytest.mark.parametrize(
    "fields", [{"reasoning_content": "hm"}, {"reasoning": "hm"}, {"tool_calls": [{"index": 0, "id": "c"}]}]
)
def test_reasoning_and_calls_are_a_first_token_too(fields: dict[str, Any]) -> None:
    reader = StreamReader()
    reader.feed(event(delta(**fields)))
    assert reader.started


def test_calls_are_put_together_by_index_or_by_id() -> None:
    def call(**fields: Any) -> dict[str, Any]:
        return {"function": fields.pop("f", {})} | fields

    indexed = event(delta(tool_calls=[call(index=1, id="b", f={"name": "g", "arguments": ""})]))
    indexed += event(
        delta(tool_calls=[call(index=0, id="a", f={"name": "f"}), call(index=1, f={"arguments": "{}"})])
    )
    plain = event(delta(tool_calls=[call(id="a", f={"name": "f"})]))
    plain += event(delta(tool_calls=[call(id="b", f={"name": "g", "arguments": "{"})]))
    plain += event(delta(tool_calls=[call(f={"arguments": "}"})]))
    for body in (indexed, plain):
        (choice,) = read(body + event(delta(reason="tool_calls"))).choices
        assert choice.tool_calls == (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))
        assert choice.stop_reason is StopReason.TOOL_CALLS
    as_object = event(delta(reason="stop", tool_calls=[call(id="a", f={"name": "f", "arguments": {"x": 1}})]))
    assert read(as_object).choices[0].tool_calls == (ToolCall("a", "f", '{"x":1}'),)


def test_what_servers_send_beside_the_rule() -> None:
    parts = event(delta(content=[{"type": "text", "text": "a"}, {"text": "b"}], reason="stop"))
    assert read(parts).choices == (Choice("ab"),)
    assert read(event({"delta": None, "finish_reason": "stop"})).choices == (Choice(""),)
    assert read(event(delta(refusal="No.", reason="stop"))).choices == (
        Choice("No.", StopReason.CONTENT_FILTER),
    )
    lines = b'data: {"choices": [{"delta":\ndata: {"content": "a"}, "finish_reason": "stop"}]}\n\n'
    assert read(lines).choices == (Choice("a"),), "an event of several lines"
    assert read(lines.rstrip()).choices == (Choice("a"),), "and one without its end"
    spoilt = b'data: {"choices": [{"delta": {"content": "\xff"}, "finish_reason": "stop"}]}\n\n'
    assert read(spoilt).choices == (Choice("\ufffd"),)
    ping = b'event: ping\ndata: {"type": "ping"}\n\n' + event(delta(content="a", reason="stop"))
    assert read(ping).choices == (Choice("a"),)


def test_an_error_ends_the_stream() -> None:
    for data in (b'{"error": {"message": "later", "code": 429}}', b'{"message": "later", "code": 429}'):
        reader = StreamReader()
        reader.feed(event(delta(content="a")) + b"event: error\ndata: " + data + b"\n\n")
        assert reader.ended
        assert reader.error is not None
        assert reader.error.message == "later"


@pytest.mark.parametrize(
    ("body", "n"),
    [
        (event(delta(content="a")), 1),
        (event(delta(content="a", reason="stop")), 2),
        (event(delta(content="a")) + b'data: {"choices', 1),
        (b"data: nonsense\n\n", 1),
        (b"data: 3\n\n", 1),
        (b'data: {"choices": 3}\n\n', 1),
        (b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', 1),
    ],
)
def test_what_is_no_whole_stream(body: bytes, n: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(body, n)


@pytest.mark.parametrize("body", [b'\n\n {"choices": []}', b"<html>data: x</html>", b"[1]", b"", b"  "])
def test_what_is_no_stream_at_all_is_kept_as_it_is(body: bytes) -> None:
    reader = StreamReader()
    for place in range(len(body)):
        reader.feed(body[place : place + 1])
    assert reader.body == body
    assert not reader.started


@given(st.binary(max_size=80), st.lists(st.integers(0, 100), max_size=5))
def test_any_bytes_are_a_completion_or_a_value_error(tail: bytes, cuts: list[int]) -> None:
    try:
        completion = read(event(delta(content="a")) + tail, 1, cuts)
    except ValueError:
        return
    assert completion.choices[0].content.startswith("a")
