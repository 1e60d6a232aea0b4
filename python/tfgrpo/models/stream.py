"""The server-sent events of a streamed answer, put together to what an unstreamed one holds. Pure.

Events may be cut anywhere, end in CRLF, come between comments and blank lines (some servers send those while a
call is queued), belong to several answers in turn, and lack the closing `[DONE]`. An endpoint that ignores the
wish for a stream and sends one JSON body is understood as well.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from tfgrpo.models import wire

#: What the first line of a stream can begin with: a comment, data, event, id, retry, or a byte order mark.
_BEGINNINGS = frozenset(b":deir\xef")


class _FunctionDelta(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _CallDelta(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[wire.WirePart] | None = None
    tool_calls: list[_CallDelta] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Piece(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    index: int | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Piece] | None = None
    usage: Any = None
    model: str | None = None
    error: Any = None


_EVENT = msgspec.json.Decoder(_Event)


class _Call(msgspec.Struct):
    id: str | None
    name: str
    arguments: list[str]


class _Partial(msgspec.Struct):
    """One of the answers, as far as it has come."""

    content: list[str]
    refusal: list[str]
    calls: dict[int, _Call]
    reason: str | None = None


class StreamReader:
    """Takes the pieces of a body as they arrive.

    `started` is True once a piece of an answer (also of its reasoning) was there, `ended` once nothing more can
    come: after `[DONE]`, or with the `error` that the server sent instead.
    """

    def __init__(self) -> None:
        self.started = False
        self.ended = False
        self.error: wire.WireError | None = None
        self._is_stream: bool | None = None
        self._parts: list[bytes] = []
        self._pending: list[bytes] = []
        self._answers: dict[int, _Partial] = {}
        self._usage: Any = None
        self._model: str | None = None

    @property
    def body(self) -> bytes | None:
        """The whole body so far, when it is no stream; else None."""
        return None if self._is_stream else b"".join(self._parts)

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            ValueError: an event is not JSON, or no part of a chat completion.
        """
        if not self._is_stream and not self._sniff(piece):
            self._parts.append(piece)
            return
        if b"\n" not in piece:
            self._parts.append(piece)
            return
        if self._parts:
            piece = b"".join((*self._parts, piece))
            self._parts.clear()
        lines = piece.split(b"\n")
        if rest := lines.pop():
            self._parts.append(rest)
        for line in lines:
            if line.startswith(b"data:"):
                self._data(line[5:])
            elif self._pending and not line.strip():
                self._close_event()

    def finish(self, n: int) -> wire.Completion:
        """The completion of a request for `n` answers, after the last piece.

        Raises:
            ValueError: the stream ended before the answers did, or its last event is unusable.
        """
        if self._parts:
            self.feed(b"\n")
        if self._pending:
            self._close_event()
        whole = len(self._answers) >= n and all(answer.reason for answer in self._answers.values())
        if not (self.ended or whole):
            raise ValueError("the stream ended before the answer did")
        choices = [_choice(index, answer) for index, answer in sorted(self._answers.items())]
        return wire.completion(choices, self._usage, self._model)

    def _sniff(self, piece: bytes) -> bool:
        """Tell whether this is a stream, as far as can be told yet."""
        if self._is_stream is None and (begun := piece.lstrip()):
            self._is_stream = begun[0] in _BEGINNINGS
        return bool(self._is_stream)

    def _data(self, data: bytes) -> None:
        if not self._pending:
            try:
                event = _EVENT.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                if data.strip() == b"[DONE]":
                    self.ended = True
                    return
            else:
                self._take(event, data)
                return
        # Perhaps the event has more lines of data, perhaps it needs the patient reader: its end will tell.
        self._pending.append(data)

    def _close_event(self) -> None:
        data = b"\n".join(self._pending)
        self._pending.clear()
        value = wire.loads(data)
        try:
            self._take(msgspec.convert(value, _Event), data)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None

    def _take(self, event: _Event, data: bytes) -> None:
        if event.usage is not None:
            self._usage = event.usage
        if event.model is not None:
            self._model = event.model
        if event.choices:
            for piece in event.choices:
                self._add(piece)
        elif event.error or (event.choices is None and event.usage is None):
            self.error = wire.error_of(wire.loads(data))
            self.ended = self.ended or self.error is not None

    def _add(self, piece: _Piece) -> None:
        index = piece.index or 0
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = _Partial([], [], {})
        if piece.finish_reason is not None:
            answer.reason = piece.finish_reason
        delta = piece.delta
        if delta is None:
            return
        if content := delta.content:
            self.started = True
            if isinstance(content, str):
                answer.content.append(content)
            else:
                answer.content.extend(part.text or "" for part in content)
        elif delta.reasoning_content or delta.reasoning:
            self.started = True
        if delta.refusal:
            answer.refusal.append(delta.refusal)
        if delta.tool_calls:
            self.started = True
            for call in delta.tool_calls:
                _add_call(answer.calls, call)


def _add_call(calls: dict[int, _Call], delta: _CallDelta) -> None:
    """Add to the call of this index; without one, a new id begins a new call and no id goes on with the last."""
    index = delta.index
    if index is None:
        last = max(calls, default=-1)
        same = last >= 0 and delta.id in {None, calls[last].id}
        index = last if same else last + 1
    function = delta.function or _FunctionDelta()
    call = calls.setdefault(index, _Call(delta.id, "", []))
    call.name = call.name or function.name or ""
    call.id = call.id or delta.id
    if (arguments := function.arguments) is not None:
        call.arguments.append(arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode())


def _choice(index: int, answer: _Partial) -> wire.WireChoice:
    calls = [
        wire.WireToolCall(
            wire.WireFunction(call.name, "".join(call.arguments) if call.arguments else None), call.id
        )
        for _, call in sorted(answer.calls.items())
    ]
    said = wire.WireAnswer("".join(answer.content), "".join(answer.refusal) or None, calls)
    return wire.WireChoice(said, index, answer.reason)
