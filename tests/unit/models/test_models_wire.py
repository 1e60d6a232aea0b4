"""The wire format: golden bytes out, tolerance in, money, and the reading of failures."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from tfgrpo import errors
from tfgrpo.models import cost, failures, priced, wire
from tfgrpo.models.openai import _header_key  # its pure part
from tfgrpo.models.transport import environment_proxy
from tfgrpo.testing.loopback import endpoint
from tfgrpo.types import Choice, Message, ModelRequest, Price, StopReason, ToolCall, Usage

SCHEMA = {"type": "object", "properties": {"queue": {"enum": ["Q2", "Q4"]}}}
HELLO = ModelRequest((Message("user", "Hello"),))

texts = st.text(st.characters(codec="utf-8"), max_size=12)
calls = st.builds(ToolCall, texts, texts, texts)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
    st.lists(calls, max_size=2).map(tuple),
)
requests = st.builds(
    ModelRequest,
    messages=st.lists(messages, max_size=3).map(tuple),
    n=st.integers(1, 8),
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 100),
    seed=st.none() | st.integers(0, 2**31),
    stop=st.lists(texts, max_size=2).map(tuple),
    response_schema=st.none() | st.just(SCHEMA),
)


def encode(request: ModelRequest, **options: Any) -> bytes:
    return wire.RequestEncoder("m").encode(request, **options)


@given(requests)
def test_the_kits_server_reads_back_what_the_client_writes(request: ModelRequest) -> None:
    assert endpoint.decode_request(encode(request)) == (request, "m", False, None)


@given(
    st.lists(st.builds(Choice, texts, st.sampled_from(StopReason), st.lists(calls).map(tuple)), max_size=4)
)
def test_choices_survive_the_wire(choices: list[Choice]) -> None:
    body = endpoint.encode_reply(choices, None, "m")
    named = [
        Choice(
            c.content,
            c.stop_reason,
            tuple(ToolCall(t.id or f"call_{i}", t.name, t.arguments) for i, t in enumerate(c.tool_calls)),
        )
        for c in choices
    ]
    assert list(wire.decode_completion(wire.loads(body)).choices) == named


def test_golden_minimal_request() -> None:
    assert encode(HELLO) == b'{"model":"m","messages":[{"role":"user","content":"Hello"}]}'


def test_a_stream_is_asked_for_with_its_usage() -> None:
    head = b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"stream":true'
    assert encode(HELLO, streaming="usage") == head + b',"stream_options":{"include_usage":true}}'
    assert encode(HELLO, streaming="plain") == head + b"}"


@given(st.lists(requests, min_size=1, max_size=6), st.integers(0, 400))
def test_what_an_encoder_remembers_changes_nothing(asked: list[ModelRequest], kept: int) -> None:
    encoder = wire.RequestEncoder("m", kept)
    for request in asked * 2:
        again = ModelRequest(request.messages[::-1], n=request.n, temperature=0.5)
        assert encoder.encode(request) == encode(request)
        assert encoder.encode(again) == encode(again)


def test_an_encoder_finds_a_message_again_and_forgets_old_ones() -> None:
    encoder = wire.RequestEncoder("m", kept=4_000)
    shared = Message("system", "S" * 500)
    held = []
    for place in range(50):
        request = ModelRequest((shared, Message("user", f"{place} " + "U" * 500)))
        assert encoder.encode(request) == encode(request)
        held.append(request)
    kept = encoder._young | encoder._old
    assert id(shared) in kept
    assert sum(len(encoded) for _, encoded in kept.values()) <= 4_000


def test_golden_full_request() -> None:
    request = ModelRequest(
        messages=(
            Message("system", "S"),
            Message("assistant", "", (ToolCall("c1", "add", '{"a":1}'),)),
            Message("tool", "2", (), "c1"),
        ),
        n=3, temperature=0.7, top_p=0.95, max_tokens=9, seed=5, stop=("END",),
        response_schema={"type": "object"}, schema_name="route", tools=({"type": "function"},),
    )  # fmt: skip
    assert encode(request) == (
        b'{"model":"m","messages":[{"role":"system","content":"S"},'
        b'{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function",'
        b'"function":{"name":"add","arguments":"{\\"a\\":1}"}}]},'
        b'{"role":"tool","content":"2","tool_call_id":"c1"}],'
        b'"n":3,"temperature":0.7,"top_p":0.95,"max_tokens":9,"seed":5,"stop":["END"],'
        b'"response_format":{"type":"json_schema","json_schema":{"name":"route","strict":true,'
        b'"schema":{"type":"object"}}},"tools":[{"type":"function"}]}'
    )


def test_a_schema_in_words_goes_to_the_end_of_the_last_user_message() -> None:
    turns = (Message("system", "S"), Message("user", "U"), Message("assistant", "A"))
    body = orjson.loads(encode(ModelRequest(turns, response_schema=SCHEMA), schema_in_prompt=True))
    assert "response_format" not in body
    asked = [message["content"] for message in body["messages"]]
    assert asked[0] == "S"
    assert asked[2] == "A"
    assert asked[1].startswith("U\n\n")
    assert asked[1].endswith(orjson.dumps(SCHEMA).decode())


def _completion(message: dict[str, Any], **more: Any) -> wire.Completion:
    return wire.decode_completion({"choices": [{"message": message, **more}], "x": None})


def test_decoding_tolerates_what_servers_send() -> None:
    assert _completion({"content": None, "role": None}).choices == (Choice(""),)
    assert _completion({"content": [{"type": "text", "text": "a"}, {"text": "b"}]}).choices == (Choice("ab"),)
    assert _completion({"refusal": "No."}).choices == (Choice("No.", StopReason.CONTENT_FILTER),)
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    assert _completion({"tool_calls": [call]}, finish_reason="tool_calls").choices == (
        Choice("", StopReason.TOOL_CALLS, (ToolCall("call_0", "f", '{"a":1}'),)),
    )


bodies = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries(
        {"message": st.fixed_dictionaries({"content": texts | st.none() | st.just([{"text": "a"}])}, optional={
            "refusal": texts, "tool_calls": st.none() | st.just([{"function": {"name": "f", "arguments": {}}}]),
        })},
        optional={"index": st.integers(0, 3), "finish_reason": st.sampled_from(["stop", "length", None])},
    ), max_size=3)},
    optional={"model": texts | st.none(), "usage": st.none() | st.just(7) | st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_cache_hit_tokens"]),
        st.integers(-1, 9) | st.none() | st.booleans(),
    ), "extra": st.none()},
)  # fmt: skip


@given(bodies, st.sampled_from([b"", b"\n\n\r\n "]))
def test_the_strict_way_reads_what_the_patient_way_reads(body: dict[str, Any], blank: bytes) -> None:
    content = blank + orjson.dumps(body)
    strict = wire.decode_strictly(content)
    assert strict is None or strict == wire.decode_completion(wire.loads(content))


def test_a_flawless_body_is_read_the_strict_way() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    body = {"id": "x", "choices": [{"index": 0, "message": {"content": "a"}}], "usage": usage, "model": "m"}
    strict = wire.decode_strictly(b"\n\n" + orjson.dumps(body))
    assert strict == wire.Completion((Choice("a"),), Usage(1, 9, 4, 2), True, "m")
    for flawed in (
        rb'{"choices":[{"message":{"content":"\ud800"}}],"usage":',
        b'{"choices":[{"message":{"content":"\xff"}}],"usage":',
    ):
        assert wire.decode_strictly(flawed + b'{"prompt_tokens":1,"completion_tokens":1}}') is None


def test_choices_come_in_the_order_of_their_index() -> None:
    both = [{"index": i, "message": {"content": str(i)}} for i in (1, 0)]
    assert [choice.content for choice in wire.decode_completion({"choices": both}).choices] == ["0", "1"]


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter"),
     (None, "stop"), ("eos", "stop")],
)  # fmt: skip
def test_stop_reasons(reason: str | None, meaning: str) -> None:
    assert _completion({"content": "x"}, finish_reason=reason).choices[0].stop_reason == meaning


@pytest.mark.parametrize(
    ("sent", "usage", "known"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2}, Usage(1, 9, 0, 2), True),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
         Usage(1, 9, 4, 2), True),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 5}, Usage(1, 9, 5, 2), True),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 50}, Usage(1, 9, 9, 2), True),
        ({"prompt_tokens": -9, "completion_tokens": "2"}, Usage(1), False),
        ({"prompt_tokens": True, "completion_tokens": 2}, Usage(1, 0, 0, 2), False),
        (None, Usage(1), False),
        ("many", Usage(1), False),
    ],
)  # fmt: skip
def test_usage(sent: Any, usage: Usage, known: bool) -> None:
    completion = wire.decode_completion({"choices": [], "usage": sent})
    assert (completion.usage, completion.usage_known) == (usage, known)


def test_lone_surrogates_and_bad_utf8_are_replaced() -> None:
    assert wire.loads(rb'{"a": "\ud800x"}') == {"a": "\ufffdx"}
    assert wire.loads(b'{"a": "\xff"}') == {"a": "\ufffd"}


def test_cost_by_the_million() -> None:
    usage = Usage(1, input_tokens=3_000_000, cached_tokens=1_000_000, output_tokens=500_000)
    assert cost(usage, Price(input=1, output=4, cached_input=0.1)) == pytest.approx(4.1)
    assert cost(usage, Price(input=1, output=4)) == pytest.approx(5.0)
    assert cost(usage, None) == 0.0
    assert priced(usage, Price(input=1, output=4)).usd == pytest.approx(5.0)


# --- failures ----------------------------------------------------------------------------------------------


def _failure(status: int, message: str = "", code: str = "", **headers: str) -> errors.ModelError:
    given_headers = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    error = wire.WireError(message, code)
    return failures.failure(status, given_headers, error, place="http://x/v1", model="m", secret="hush-hush")


@pytest.mark.parametrize(
    ("status", "message", "code", "kind"),
    [
        (401, "", "", errors.AuthenticationError),
        (403, "", "", errors.AuthenticationError),
        (402, "", "", errors.QuotaError),
        (429, "", "insufficient_quota", errors.QuotaError),
        (429, "slow down", "", errors.RateLimitedError),
        (404, "", "", errors.UnknownModelError),
        (405, "", "", errors.UnknownModelError),
        (400, "The model `m` does not exist", "", errors.UnknownModelError),
        (400, "", "context_length_exceeded", errors.ContextLengthError),
        (400, "the request exceeds the available context size", "", errors.ContextLengthError),
        (413, "", "", errors.ContextLengthError),
        (400, "", "content_filter", errors.ContentFilterError),
        (403, "Your input was flagged", "", errors.ContentFilterError),
        (400, "top_p must be positive", "", errors.InvalidRequestError),
        (422, "", "", errors.InvalidRequestError),
        (307, "", "", errors.InvalidRequestError),
        (408, "", "", errors.ModelTimeoutError),
        (500, "", "", errors.ServerError),
        (502, "", "", errors.ServerError),
        (503, "", "", errors.OverloadedError),
        (529, "", "", errors.OverloadedError),
    ],
)
def test_each_failure_has_its_type(
    status: int, message: str, code: str, kind: type[errors.ModelError]
) -> None:
    error = _failure(status, message, code)
    assert type(error) is kind
    assert error.status == status
    assert str(status) in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"Retry_After": "9", "retry_after_ms": "250"}, 0.25),
        ({"Retry_After": "Mon, 02 Jan 2023 00:00:09 GMT", "Date": "Mon, 02 Jan 2023 00:00:04 GMT"}, 5.0),
        ({"Retry_After": "Mon, 02 Jan 2023 00:00:09 GMT", "Date": "Mon, 02 Jan 2023 00:01:00 GMT"}, 0.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert _failure(429, **headers).retry_after == seconds


def test_messages_quote_little_and_no_key() -> None:
    error = _failure(401, "wrong key hush-hush or sk-abcdef123456, " + "x" * 5000)
    assert "hush-hush" not in error.message
    assert "sk-abcdef" not in error.message
    assert len(error.message) < 700


@pytest.mark.parametrize(
    ("message", "param", "group"),
    [
        ("Invalid n value (currently only n = 1 is supported)", "", True),
        ("'n' : number must be at most 1", "", True),
        ("n_cmpl cannot be greater than the number of slots", "", True),
        ("unsupported value", "n", True),
        ("temperature is not in range", "", False),
        ("don't send top_p", "", False),
    ],
)
def test_a_refusal_of_n_is_recognised(message: str, param: str, group: bool) -> None:
    assert failures.is_about_group(wire.WireError(message, param=param)) is group


@pytest.mark.parametrize(
    ("message", "param", "stream", "options"),
    [
        ("Unknown field: stream_options", "", True, True),
        ("extra fields not permitted", "stream_options.include_usage", True, True),
        ("This model does not support streaming", "", True, False),
        ("unsupported value", "stream", True, False),
        ("upstream is unhappy", "", False, False),
    ],
)
def test_a_refusal_of_streams_is_recognised(message: str, param: str, stream: bool, options: bool) -> None:
    error = wire.WireError(message, param=param)
    assert failures.is_about_stream(error) is stream
    assert failures.is_about_stream_options(error) is options


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [("429", "", 429), ("", "overloaded_error", 529), ("rate_limit_exceeded", "", 429), ("200", "", None),
     ("9" * 9999, "", None), ("", "", None)],
)  # fmt: skip
def test_an_error_inside_a_200_stands_for_a_status(code: str, kind: str, status: int | None) -> None:
    assert failures.status_inside(wire.WireError("x", code, kind)) == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "a", "code": 4}}', "a"),
        (b'{"error": "b"}', "b"),
        (b'{"detail": [1]}', "[1]"),
        (b"<html>", "<html>"),
        (b"[]", "[]"),
    ],
)
def test_error_bodies_of_every_shape(body: bytes, message: str) -> None:
    assert wire.decode_error(body).message == message


@given(st.text(st.characters(codec="utf-8"), max_size=400))
def test_any_logical_key_fits_a_header(key: str) -> None:
    header = _header_key(key)
    assert header.isascii()
    assert len(header) <= 255
    assert not any(ord(char) < 32 for char in header)


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    monkeypatch.setenv("http_proxy", "proxy:3128")
    assert environment_proxy(URL("https://api/v1")) == (
        "http://proxy:3128",
        {"Proxy-Authorization": "Basic bWU6c2VjcmV0"},
    )
    assert environment_proxy(URL("http://127.0.0.1:80/v1")) == (None, None)
    monkeypatch.setenv("no_proxy", "api")
    assert environment_proxy(URL("https://api/v1")) == (None, None)
