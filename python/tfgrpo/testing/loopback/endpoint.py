"""The server's side of OpenAI's chat completions format: bodies to requests, choices to bodies. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson

from tfgrpo.testing.scripts import count_tokens, prompt_tokens
from tfgrpo.types import Choice, Message, ModelRequest, ToolCall


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct):
    id: str
    function: _Function


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None


class _Schema(msgspec.Struct):
    name: str
    schema: dict[str, Any]


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = None
    response_format: _Format | None = None
    tools: list[dict[str, Any]] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class Asked(NamedTuple):
    """A decoded request: what is asked, of which model, whether in pieces, and whether with options for that.

    `stream_usage` is None where there are no `stream_options`.
    """

    request: ModelRequest
    model: str
    stream: bool = False
    stream_usage: bool | None = None


_DECODER = msgspec.json.Decoder(_Request)


def decode_request(body: bytes) -> Asked:
    """The inverse of what the client encodes.

    Raises:
        ValueError: the body is not JSON or no request.
    """
    try:
        wire = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    form = wire.response_format.json_schema if wire.response_format is not None else None
    request = ModelRequest(
        messages=tuple(map(_message, wire.messages)),
        n=wire.n,
        temperature=wire.temperature,
        top_p=wire.top_p,
        max_tokens=wire.max_tokens,
        seed=wire.seed,
        stop=tuple(wire.stop or ()),
        response_schema=None if form is None else form.schema,
        schema_name="answer" if form is None else form.name,
        tools=tuple(wire.tools or ()),
    )
    options = None if wire.stream_options is None else wire.stream_options.include_usage
    return Asked(request, wire.model, bool(wire.stream), options)


def _message(wire: _Message) -> Message:
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments) for call in wire.tool_calls or ()
    )
    return Message(wire.role, wire.content or "", calls, wire.tool_call_id)


def usage(request: ModelRequest, choices: Sequence[Choice]) -> dict[str, Any]:
    """The usage object of an answer, in words."""
    tokens_in = prompt_tokens(request.messages)
    tokens_out = sum(count_tokens(choice.content) for choice in choices)
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def encode_reply(choices: Sequence[Choice], usage: Mapping[str, Any] | None, model: str) -> bytes:
    """A response body; `usage` None leaves it out."""
    body: dict[str, Any] = {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [_choice(choice, place) for place, choice in enumerate(choices)],
    }
    if usage is not None:
        body["usage"] = usage
    return orjson.dumps(body)


def _choice(choice: Choice, place: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.content}
    if choice.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.tool_calls
        ]
    return {"index": place, "message": message, "finish_reason": choice.stop_reason.value}


def encode_stream(
    choices: Sequence[Choice], usage: Mapping[str, Any] | None, model: str, *, broken: bool = False
) -> Iterator[bytes]:
    """The events of a streamed response: the choices in turn, a word or a call at a time.

    Args:
        choices: the answers.
        usage: told in an event of its own; None leaves it out.
        model: the model's name.
        broken: put something that is not JSON into the middle.
    """

    def event(**fields: Any) -> bytes:
        head = {"id": "chatcmpl-loopback", "object": "chat.completion.chunk", "created": 0, "model": model}
        return b"data: " + orjson.dumps(head | fields) + b"\n\n"

    def piece(place: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return event(choices=[{"index": place, "delta": delta, "finish_reason": reason}])

    for place in range(len(choices)):
        yield piece(place, {"role": "assistant", "content": ""})
    deltas = [list(_deltas(choice)) for choice in choices]
    for turn in range(max(map(len, deltas), default=0)):
        for place, of_choice in enumerate(deltas):
            if turn < len(of_choice):
                yield piece(place, of_choice[turn])
    if broken:
        yield b'data: {"choices": [{"index"\n\n'
    for place, choice in enumerate(choices):
        yield piece(place, {}, choice.stop_reason.value)
    if usage is not None:
        yield event(choices=[], usage=usage)
    yield b"data: [DONE]\n\n"


def _deltas(choice: Choice) -> Iterator[dict[str, Any]]:
    """A choice in pieces: words with the space after them, then each call: its name, its arguments in halves."""
    for word in re.findall(r"\S*\s*", choice.content):
        if word:
            yield {"content": word}
    for place, call in enumerate(choice.tool_calls):
        function = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [{"index": place, "id": call.id, "type": "function", "function": function}]}
        half = len(call.arguments) // 2
        for part in (call.arguments[:half], call.arguments[half:]):
            yield {"tool_calls": [{"index": place, "function": {"arguments": part}}]}


def encode_error(message: str, code: str, param: str = "") -> bytes:
    """An error body in OpenAI's form."""
    kind = "invalid_request_error"
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param or None, "code": code}})


def models_body(names: Sequence[str]) -> bytes:
    """The answer to `GET /v1/models`."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "tfgrpo"} for name in names]
    return orjson.dumps({"object": "list", "data": data})
