"""OpenAI's chat completions format: requests to bytes, response bodies to choices and usage. Pure.

Decoding tolerates what servers really send: unknown fields, nulls, content in parts, arguments as objects,
usage that is missing or nonsense. It does not tolerate a reply without the answers that were asked for.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson

from tfgrpo.models.structured import scrub
from tfgrpo.types import Choice, Message, ModelRequest, StopReason, ToolCall, Usage

_STOP_REASONS = {
    "length": StopReason.LENGTH,
    "max_tokens": StopReason.LENGTH,
    "model_length": StopReason.LENGTH,
    "tool_calls": StopReason.TOOL_CALLS,
    "function_call": StopReason.TOOL_CALLS,
    "content_filter": StopReason.CONTENT_FILTER,
}


class Completion(msgspec.Struct, frozen=True):
    """A decoded response body. `usage_known` is False when the server sent no usable usage."""

    choices: tuple[Choice, ...]
    usage: Usage
    usage_known: bool
    model: str


class WireError(msgspec.Struct, frozen=True):
    """What an error body says, as far as it says it."""

    message: str
    code: str = ""
    type: str = ""
    param: str = ""


# --- requests ------------------------------------------------------------------------------------------


def encode_request(request: ModelRequest, model: str, *, schema_in_prompt: bool = False) -> bytes:
    """The JSON body of a request.

    Args:
        request: what is asked; settings that are None are left to the server, `n` is sent only when > 1.
        model: the model's name at the endpoint.
        schema_in_prompt: ask for `request.response_schema` in words instead of by `response_format`.
    """
    schema = request.response_schema
    messages = request.messages
    if schema is not None and schema_in_prompt:
        messages = _with_schema(messages, schema)
    body: dict[str, Any] = {"model": model, "messages": [_message(message) for message in messages]}
    if request.n > 1:
        body["n"] = request.n
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.stop:
        body["stop"] = list(request.stop)
    if schema is not None and not schema_in_prompt:
        form = {"name": request.schema_name, "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if request.tools:
        body["tools"] = list(request.tools)
    return orjson.dumps(body)


def _message(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _with_schema(messages: tuple[Message, ...], schema: dict[str, Any]) -> tuple[Message, ...]:
    """Append the demand to the last user message, else to the last system message, else as a new one.

    The end of the prompt is where small models obey best, and the shared prefix stays as it was.
    """
    demand = (
        "Answer with one JSON object and nothing else. It must follow this JSON schema:\n"
        + orjson.dumps(schema).decode()
    )
    for role in ("user", "system"):
        for place in range(len(messages) - 1, -1, -1):
            if messages[place].role == role:
                content = f"{messages[place].content}\n\n{demand}"
                asked = msgspec.structs.replace(messages[place], content=content)
                return (*messages[:place], asked, *messages[place + 1 :])
    return (*messages, Message("user", demand))


# --- responses -----------------------------------------------------------------------------------------


class _Function(msgspec.Struct):
    name: str
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _Answer(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Answer
    index: int | None = None
    finish_reason: str | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: Any = None


def loads(body: bytes) -> Any:
    """Decode JSON as lenient as servers are: bad UTF-8 and lone surrogates become U+FFFD.

    Raises:
        ValueError: the body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return scrub(json.loads(body.decode("utf-8", "replace")))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


def decode_completion(body: Any) -> Completion:
    """Read a decoded response body.

    Raises:
        ValueError: it is no chat completion; the text says what is missing.
    """
    try:
        wire = msgspec.convert(body, _Body)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    answers = wire.choices
    if all(answer.index is not None for answer in answers):
        answers = sorted(answers, key=lambda answer: answer.index or 0)
    usage, known = _usage(wire.usage)
    return Completion(tuple(map(_choice, answers)), usage, known, wire.model or "")


def _choice(wire: _Choice) -> Choice:
    answer = wire.message
    content = answer.content
    if isinstance(content, list):
        content = "".join(part.text or "" for part in content)
    reason = _STOP_REASONS.get(wire.finish_reason or "", StopReason.STOP)
    if answer.refusal and not content:
        content, reason = answer.refusal, StopReason.CONTENT_FILTER
    calls = tuple(_tool_call(call, place) for place, call in enumerate(answer.tool_calls or ()))
    return Choice(content or "", reason, calls)


def _tool_call(wire: _ToolCall, place: int) -> ToolCall:
    arguments = wire.function.arguments
    if arguments is None:
        arguments = "{}"
    elif not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    return ToolCall(wire.id or f"call_{place}", wire.function.name, arguments)


def _usage(wire: Any) -> tuple[Usage, bool]:
    """Token counts, and whether they are usable; unusable ones are zero."""
    if not isinstance(wire, dict):
        return Usage(calls=1), False
    tokens_in, tokens_out = _count(wire.get("prompt_tokens")), _count(wire.get("completion_tokens"))
    details = wire.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    if cached is None:
        cached = _count(wire.get("prompt_cache_hit_tokens")) or 0
    known = tokens_in is not None and tokens_out is not None
    return Usage(1, tokens_in or 0, min(cached, tokens_in or 0), tokens_out or 0), known


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def decode_error(body: bytes) -> WireError:
    """What an error body says; a body in no known form is quoted as it is."""
    try:
        value = loads(body)
    except ValueError:
        return WireError(body[:4096].decode("utf-8", "replace"))
    return error_of(value) or WireError(orjson.dumps(value)[:4096].decode("utf-8", "replace"))


def error_of(value: Any) -> WireError | None:
    """The error in a decoded body: OpenAI's `{"error": {...}}` and the shapes other servers use."""
    if not isinstance(value, dict):
        return None
    error = value.get("error") or value.get("message") or value.get("detail")
    if isinstance(error, dict):
        texts = {
            field: "" if error.get(field) is None else str(error[field])
            for field in ("message", "code", "type", "param")
        }
        return WireError(**texts)
    if error:
        return WireError(error if isinstance(error, str) else orjson.dumps(error).decode())
    return None
