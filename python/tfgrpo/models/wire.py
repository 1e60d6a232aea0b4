"""OpenAI's chat completions format: requests to bytes, response bodies to choices and usage. Pure.

Decoding tolerates what servers really send: unknown fields, nulls, content in parts, arguments as objects,
usage that is missing or nonsense. It does not tolerate a reply without the answers that were asked for.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

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
    """The content of an error body, as far as it tells."""

    message: str
    code: str = ""
    type: str = ""
    param: str = ""


# --- requests ------------------------------------------------------------------------------------------

#: Bytes of encoded messages that an encoder keeps at most.
_KEPT = 8 * 2**20

#: How a streamed answer is asked for: with the usage at its end, or without saying anything about it.
Streaming = Literal["usage", "plain"]

_STREAMING: dict[Streaming, dict[str, Any]] = {
    "usage": {"stream": True, "stream_options": {"include_usage": True}},
    "plain": {"stream": True},
}


class RequestEncoder:
    """Writes the JSON bodies of requests to one model.

    The calls of a step share their system message, those of a group all messages, and each turn of a trajectory
    the turns before: so every message is encoded once and found again by identity, in two generations of which
    the older is dropped when the younger is full.

    Args:
        model: the model's name at the endpoint.
        kept: bytes of encoded messages to keep at most.
    """

    def __init__(self, model: str, kept: int = _KEPT) -> None:
        self._head = b'{"model":' + orjson.dumps(model) + b',"messages":['
        self._half = kept // 2
        self._size = 0
        # The message is kept beside its bytes: as long as it lives, nothing else can have its id.
        self._young: dict[int, tuple[Message, bytes]] = {}
        self._old: dict[int, tuple[Message, bytes]] = {}

    def encode(
        self, request: ModelRequest, *, schema_in_prompt: bool = False, streaming: Streaming | None = None
    ) -> bytes:
        """The JSON body of a request.

        Args:
            request: what is asked; settings that are None are left to the server, `n` is sent only when > 1.
            schema_in_prompt: ask for `request.response_schema` in words instead of by `response_format`.
            streaming: ask for the answer in pieces.
        """
        schema = request.response_schema
        if schema is not None and schema_in_prompt:
            messages = [orjson.dumps(_message(message)) for message in _with_schema(request.messages, schema)]
        else:
            messages = [self._encoded(message) for message in request.messages]
        rest: dict[str, Any] = {}
        if request.n > 1:
            rest["n"] = request.n
        if request.temperature is not None:
            rest["temperature"] = request.temperature
        if request.top_p is not None:
            rest["top_p"] = request.top_p
        if request.max_tokens is not None:
            rest["max_tokens"] = request.max_tokens
        if request.seed is not None:
            rest["seed"] = request.seed
        if request.stop:
            rest["stop"] = request.stop
        if schema is not None and not schema_in_prompt:
            form = {"name": request.schema_name, "strict": True, "schema": schema}
            rest["response_format"] = {"type": "json_schema", "json_schema": form}
        if request.tools:
            rest["tools"] = request.tools
        if streaming is not None:
            rest |= _STREAMING[streaming]
        tail = b"]," + orjson.dumps(rest)[1:] if rest else b"]}"
        return b"".join((self._head, b",".join(messages), tail))

    def _encoded(self, message: Message) -> bytes:
        found = self._young.get(id(message))
        if found is not None:
            return found[1]
        found = self._old.get(id(message)) or (message, orjson.dumps(_message(message)))
        if self._size + len(found[1]) > self._half:
            self._old, self._young, self._size = self._young, {}, 0
        if len(found[1]) <= self._half:
            self._young[id(message)] = found
            self._size += len(found[1])
        return found[1]


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


class WireFunction(msgspec.Struct, gc=False):
    """The function of a tool call; some servers send the arguments as an object."""

    name: str
    arguments: Any = None


class WireToolCall(msgspec.Struct, gc=False):
    """A tool call of an answer."""

    function: WireFunction
    id: str | None = None


class WirePart(msgspec.Struct, gc=False):
    """A part of a content that comes in parts."""

    text: str | None = None


class WireAnswer(msgspec.Struct, gc=False):
    """The message of a choice."""

    content: str | list[WirePart] | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None


class WireChoice(msgspec.Struct, gc=False):
    """One of the n answers, as it is on the wire."""

    message: WireAnswer
    index: int | None = None
    finish_reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    choices: list[WireChoice]
    model: str | None = None
    usage: Any = None


_Tokens = Annotated[int, msgspec.Meta(ge=0)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: _Tokens | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Tokens
    completion_tokens: _Tokens
    prompt_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: _Tokens | None = None


class _StrictBody(msgspec.Struct, gc=False):
    """What nearly all bodies are: decoded in one pass, without a dictionary in between."""

    choices: Annotated[list[WireChoice], msgspec.Meta(min_length=1)]
    usage: _Usage
    model: str | None = None


_STRICT = msgspec.json.Decoder(_StrictBody)


def decode_strictly(body: bytes) -> Completion | None:
    """Read a body without a flaw; None for any other, which `loads` and `decode_completion` read patiently."""
    try:
        wire = _STRICT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return Completion(_ordered(wire.choices), _counted(wire.usage), True, wire.model or "")


def _counted(wire: _Usage) -> Usage:
    details = wire.prompt_tokens_details
    cached = details.cached_tokens if details is not None else None
    if cached is None:
        cached = wire.prompt_cache_hit_tokens or 0
    return Usage(1, wire.prompt_tokens, min(cached, wire.prompt_tokens), wire.completion_tokens)


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
    return completion(wire.choices, wire.usage, wire.model)


def completion(choices: list[WireChoice], usage: Any, model: str | None) -> Completion:
    """Put decoded choices and a usage of any shape together."""
    counted, known = _usage(usage)
    return Completion(_ordered(choices), counted, known, model or "")


def _ordered(answers: list[WireChoice]) -> tuple[Choice, ...]:
    if len(answers) == 1:
        return (_choice(answers[0]),)
    if all(answer.index is not None for answer in answers):
        answers = sorted(answers, key=lambda answer: answer.index or 0)
    return tuple(map(_choice, answers))


def _choice(wire: WireChoice) -> Choice:
    answer = wire.message
    content = answer.content
    if isinstance(content, list):
        content = "".join(part.text or "" for part in content)
    reason = _STOP_REASONS.get(wire.finish_reason or "", StopReason.STOP)
    if answer.refusal and not content:
        content, reason = answer.refusal, StopReason.CONTENT_FILTER
    if not answer.tool_calls:
        return Choice(content or "", reason)
    calls = tuple(_tool_call(call, place) for place, call in enumerate(answer.tool_calls))
    return Choice(content or "", reason, calls)


def _tool_call(wire: WireToolCall, place: int) -> ToolCall:
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
    """Read an error body; one in no known form is quoted as it is."""
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
