"""Storms of refusals, bodies too slow or too large, and streams: what is told, that it ends, and what it holds."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import anyio.abc
import pytest

from tfgrpo import errors
from tfgrpo.models import LimitReading, OpenAIModel, aiohttp_direct, open_session
from tfgrpo.models import openai as client
from tfgrpo.testing import FaultPlan, FaultType, LoopbackServer, PlannedFault, VirtualClock
from tfgrpo.testing.loopback import RatePlan
from tfgrpo.types import Choice, Message, ModelReply, ModelRequest, StopReason, ToolCall, Usage

HELLO = ModelRequest((Message("user", "Hello there"),))
GROUP = ModelRequest(HELLO.messages, n=3)
CALL = ToolCall("c1", "look", '{"where": "here"}')


@pytest.fixture(params=["direct", "public"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test goes both ways through aiohttp: the short one, and the one taken with a proxy."""
    if request.param == "public":
        monkeypatch.setattr(aiohttp_direct, "possible", lambda: False)
    return str(request.param)


def echo(request: ModelRequest) -> str:
    return f"{request.messages[-1].content}!"


class Watch:
    """An observer that notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.readings: list[Sequence[LimitReading]] = []
        self.times: list[float] = []

    def sent(self) -> None:
        self._note("sent")

    def answered(self, status: int, readings: Sequence[LimitReading]) -> None:
        self._note(status)
        self.readings.append(readings)

    def first_token(self) -> None:
        self._note("first token")

    def _note(self, what: object) -> None:
        self.seen.append(what)
        self.times.append(anyio.current_time())


@asynccontextmanager
async def connected(server: LoopbackServer, **settings: Any) -> AsyncIterator[OpenAIModel]:
    async with server, open_session(64) as session:
        yield OpenAIModel(server.base_url, "scripted", session=session, **settings)


@asynccontextmanager
async def raw_server(*parts: bytes, pause: float = 0.0) -> AsyncIterator[tuple[str, list[int]]]:
    """Answers every request with these bytes, one after the other; yields the URL and requests by connection."""
    connections: list[int] = []

    async def handle(stream: anyio.abc.SocketStream) -> None:
        place = len(connections)
        connections.append(0)
        async with stream:
            try:
                while b"\r\n\r\n" in await stream.receive():
                    connections[place] += 1
                    for part in parts:
                        await stream.send(part)
                        await anyio.sleep(pause)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{port}/v1", connections
        tasks.cancel_scope.cancel()
    await listener.aclose()


def chunked(body: bytes, kind: str = "text/event-stream") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
    return head.encode() + body + b"\r\n"


# --- rate limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", ["openai", "anthropic", "draft", "none"])
def test_every_response_of_a_429_storm_tells_the_limits_and_nothing_is_lost(
    headers: Literal["openai", "anthropic", "draft", "none"],
) -> None:
    plan = RatePlan(requests=60.0, tokens=600.0, burst=0.1, headers=headers)
    server = LoopbackServer(echo, rates=plan)
    refused: list[errors.RateLimitedError] = []

    async def call(model: OpenAIModel, place: int, watch: Watch) -> None:
        for _ in range(100):
            try:
                await model.complete(ModelRequest(HELLO.messages, seed=place), observer=watch)
            except errors.RateLimitedError as error:
                refused.append(error)
                await anyio.sleep((error.retry_after or 0) + place / 100)
            else:
                return
        raise AssertionError("the storm does not end")

    async def main() -> None:
        watch = Watch()
        async with connected(server) as model, anyio.create_task_group() as tasks:
            for place in range(24):
                tasks.start_soon(call, model, place, watch)
        assert watch.seen.count(429) == len(refused) == server.counts.rate_limited > 24
        assert all(error.retry_after and 0 < error.retry_after <= 60 for error in refused)
        assert not any(error.maybe_paid for error in refused)
        kinds = [[reading.kind for reading in readings] for readings in watch.readings]
        assert kinds == [[] if headers == "none" else ["requests", "tokens"]] * len(watch.readings)
        for readings in watch.readings:
            for reading, limit in zip(readings, (60.0, 600.0), strict=False):
                assert reading.limit == limit
                assert reading.remaining is not None
                assert 0 <= reading.remaining <= limit * 0.1
                assert reading.reset is not None
                assert 0 <= reading.reset <= 8
        assert server.counts.served == 24

    VirtualClock().run(main)


async def test_a_limit_is_told_with_an_answer_and_with_an_error_that_is_no_429() -> None:
    plan = RatePlan(requests=600.0, tokens=None)
    faults = FaultPlan().at(2, FaultType.OVERLOADED)
    watch = Watch()
    async with connected(LoopbackServer(echo, rates=plan, faults=faults)) as model:
        await model.complete(HELLO, observer=watch)
        with pytest.raises(errors.OverloadedError):
            await model.complete(HELLO, observer=watch)
    assert watch.seen == ["sent", 200, "first token", "sent", 503]
    for (reading,) in watch.readings:
        assert (reading.kind, reading.limit) == ("requests", 600)


# --- slow and large bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_slow_loris_is_ended_by_the_request_timeout(stream: bool) -> None:
    async def main() -> None:
        plan = FaultPlan().at(1, FaultType.SLOW_LORIS)
        async with connected(LoopbackServer(echo, faults=plan), timeout=20.0) as model:
            begun = anyio.current_time()
            with pytest.raises(errors.ModelTimeoutError):
                await model.complete(HELLO, stream=stream)
            assert anyio.current_time() - begun == pytest.approx(20, abs=1.5)

    VirtualClock().run(main)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_body_of_ten_megabytes_is_an_answer(stream: bool) -> None:
    plan = FaultPlan().at(1, FaultType.LARGE_BODY)
    async with connected(LoopbackServer(echo, faults=plan)) as model:
        reply = await model.complete(GROUP, stream=stream)
    assert reply == ModelReply((Choice("Hello there!"),) * 3, Usage(1, 2, 0, 6), "scripted")


async def _peak(stream: bool) -> int:
    """Bytes held at most while a body without end is refused."""
    plan = FaultPlan().at(1, FaultType.HUGE_BODY)
    async with connected(LoopbackServer(echo, faults=plan)) as model:
        tracemalloc.start()
        try:
            with pytest.raises(errors.MalformedReplyError, match="larger"):
                await model.complete(HELLO, stream=stream)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


async def test_a_body_without_end_is_held_up_to_the_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_BODY", 4 * 2**20)
    assert await _peak(stream=False) < 10 * 2**20
    assert await _peak(stream=True) < 4 * 2**20, "comments of a stream are not held at all"


@pytest.mark.nightly
async def test_a_body_without_end_at_the_real_limit() -> None:
    assert await _peak(stream=False) < 2.5 * client.MAX_BODY


# --- streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [HELLO, GROUP])
async def test_a_streamed_reply_is_the_unstreamed_one(request_: ModelRequest) -> None:
    def script(request: ModelRequest) -> Choice:
        return Choice(f"It is\nhere, ä… {request.seed}", StopReason.TOOL_CALLS, (CALL, CALL))

    async with connected(LoopbackServer(script)) as model:
        watch, silent = Watch(), Watch()
        streamed = await model.complete(request_, observer=watch, stream=True)
        assert streamed == await model.complete(request_, observer=silent)
        assert watch.seen == silent.seen == ["sent", 200, "first token"]
        assert model.usage_gaps == 0


def test_the_first_token_is_told_long_before_the_last() -> None:
    async def main() -> None:
        plan = FaultPlan().at(1, PlannedFault(FaultType.SLOW_BODY, seconds=80.0))
        watch = Watch()
        async with connected(LoopbackServer(lambda _: "word " * 50, faults=plan)) as model:
            await model.complete(HELLO, observer=watch, stream=True)
            ended = anyio.current_time()
        assert watch.seen == ["sent", 200, "first token"]
        assert watch.times[2] < ended - 50

    VirtualClock().run(main)


@pytest.mark.parametrize(
    ("settings", "exchanges", "gaps"),
    [
        ({"supports_stream": False}, [2, 3, 4], 0),
        # Without the options this server tells no usage: once is enough to ask for whole answers from then on.
        ({"supports_stream_options": False}, [2, 3, 4], 1),
    ],
)
async def test_a_refused_stream_is_remembered(
    settings: dict[str, bool], exchanges: list[int], gaps: int
) -> None:
    server = LoopbackServer(echo, **settings)  # type: ignore[arg-type]
    async with connected(server) as model:
        for count in exchanges:
            watch = Watch()
            reply = await model.complete(HELLO, observer=watch, stream=True)
            assert reply.choices == (Choice("Hello there!"),)
            assert server.counts.requests == count
            assert watch.seen == ["sent", 400] * (count == 2) + ["sent", 200, "first token"]
        assert reply.usage == Usage(1, 2, 0, 2)
        assert model.usage_gaps == gaps


async def test_another_400_of_a_stream_is_not_about_streams() -> None:
    server = LoopbackServer(echo, faults=FaultPlan().at(1, FaultType.INVALID_REQUEST))
    async with connected(server) as model:
        with pytest.raises(errors.InvalidRequestError):
            await model.complete(HELLO, stream=True)
        assert server.counts.requests == 1


WHOLE = b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
DELTA = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n\n'
END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(("kind", "stream"), [("application/json", True), ("application/json", False)])
async def test_one_json_body_after_blank_lines_is_an_answer(kind: str, stream: bool) -> None:
    async with (
        raw_server(
            chunked(b"\n\n", kind),
            b"3\r\n\r\n\n\r\n",
            f"{len(WHOLE):x}\r\n".encode() + WHOLE,
            b"\r\n0\r\n\r\n",
        ) as (url, _),
        open_session(1) as session,
    ):
        reply = await OpenAIModel(url, "m", session=session).complete(HELLO, stream=stream)
    assert reply == ModelReply((Choice("a"),), Usage(1, 1, 0, 1), "m")


async def test_a_connection_is_used_again_when_the_end_of_the_body_comes_late() -> None:
    async with (
        raw_server(chunked(DELTA + END), b"0\r\n\r\n", pause=0.02) as (url, connections),
        open_session(1) as session,
    ):
        model = OpenAIModel(url, "m", session=session)
        for _ in range(3):
            model._streaming = "usage"
            assert (await model.complete(HELLO, stream=True)).choices == (Choice("a"),)
            await anyio.sleep(0.05)
        assert connections == [3]


async def test_a_body_that_never_ends_after_done_does_not_hold_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_CLOSING", 0.05)
    async with raw_server(chunked(DELTA + END)) as (url, connections), open_session(1) as session:
        model = OpenAIModel(url, "m", session=session, timeout=5.0)
        assert (await model.complete(HELLO, stream=True)).choices == (Choice("a"),)
        assert connections == [1]


@pytest.mark.parametrize(
    ("body", "kind", "paid"),
    [
        (DELTA + b'data: {"error": {"message": "busy", "type": "overloaded_error"}}\n\n', errors.OverloadedError, True),
        (b'data: {"error": {"message": "slow down", "code": 429}}\n\n', errors.RateLimitedError, False),
        (b'data: {"error": {"message": "x"}}\n\n', errors.MalformedReplyError, True),
        (DELTA + b"0\r\n", errors.MalformedReplyError, True),
        (b"data: [DONE]\n\n", errors.MalformedReplyError, True),
    ],
)  # fmt: skip
async def test_an_error_in_a_stream_is_typed(body: bytes, kind: type[errors.ModelError], paid: bool) -> None:
    async with raw_server(chunked(body), b"0\r\n\r\n") as (url, _), open_session(1) as session:
        with pytest.raises(errors.ModelError) as caught:
            await OpenAIModel(url, "m", session=session).complete(HELLO, stream=True)
    assert type(caught.value) is kind
    assert caught.value.maybe_paid is paid


async def test_cancelling_a_stream_closes_its_connection() -> None:
    watch = Watch()
    async with raw_server(chunked(DELTA)) as (url, connections), open_session(1) as session:
        model = OpenAIModel(url, "m", session=session)
        with anyio.move_on_after(0.1):
            await model.complete(HELLO, observer=watch, stream=True)
        assert watch.seen == ["sent", 200, "first token"]
        with anyio.move_on_after(0.1):
            await model.complete(HELLO, stream=True)
        # The pool has one place: the second call got it, on a connection of its own.
        assert connections == [1, 1]
