"""Every failure class of the client, met over a real socket; cancellation; the pool afterwards."""

from __future__ import annotations

import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgrpo import errors
from tfgrpo.models import GroupRequestUnsupportedError, OpenAIModel, aiohttp_direct, open_session
from tfgrpo.models import openai as client
from tfgrpo.testing import FaultPlan, FaultType, LoopbackServer, PlannedFault
from tfgrpo.testing.scripts import tickets, with_key
from tfgrpo.types import Choice, Message, ModelReply, ModelRequest, Usage

HELLO = ModelRequest((Message("user", "Hello there"),))
GROUP = ModelRequest(HELLO.messages, n=3)
SCHEMA = {"type": "object", "properties": {"queue": {"enum": ["Q2", "Q4"]}}, "required": ["queue"]}


@pytest.fixture(params=["direct", "public"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test goes both ways through aiohttp: the short one, and the one taken with a proxy."""
    if request.param == "public":
        monkeypatch.setattr(aiohttp_direct, "possible", lambda: False)
    return str(request.param)


def echo(request: ModelRequest) -> str:
    return f"{request.messages[-1].content}!"


@asynccontextmanager
async def connected(server: LoopbackServer, **settings: Any) -> AsyncIterator[OpenAIModel]:
    async with server, open_session(8) as session:
        yield OpenAIModel(server.base_url, "scripted", session=session, **settings)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """A server that reads a request and sends these bytes; yields its base URL."""

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{port}/v1"
        tasks.cancel_scope.cancel()
    await listener.aclose()


def http(body: bytes, kind: str = "application/json") -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def test_a_good_answer() -> None:
    async with connected(LoopbackServer(echo), api_key="k") as model:
        reply = await model.complete(GROUP, key="run/1")
    assert reply.choices == (Choice("Hello there!"),) * 3
    assert reply.usage == Usage(1, 2, 0, 6)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("fault", "kind", "maybe_paid"),
    [
        (FaultType.RESET_BEFORE, errors.ConnectionLostError, True),
        (FaultType.RESET_AFTER, errors.ConnectionLostError, True),
        (FaultType.CUT_BODY, errors.ConnectionLostError, True),
        (FaultType.RESET_STREAM, errors.ConnectionLostError, True),
        (FaultType.HUGE_BODY, errors.MalformedReplyError, True),
        (FaultType.MALFORMED_STREAM, errors.MalformedReplyError, True),
        (FaultType.TIMEOUT, errors.ModelTimeoutError, True),
        (FaultType.SLOW_LORIS, errors.ModelTimeoutError, True),
        (FaultType.SLOW_BODY, errors.ModelTimeoutError, True),
        (FaultType.RATE_LIMITED, errors.RateLimitedError, False),
        (FaultType.SERVER_ERROR, errors.ServerError, False),
        (FaultType.OVERLOADED, errors.OverloadedError, False),
        (FaultType.MALFORMED, errors.MalformedReplyError, True),
        (FaultType.WRONG_COUNT, errors.MalformedReplyError, True),
        (FaultType.AUTHENTICATION, errors.AuthenticationError, False),
        (FaultType.QUOTA, errors.QuotaError, False),
        (FaultType.UNKNOWN_MODEL, errors.UnknownModelError, False),
        (FaultType.CONTEXT_LENGTH, errors.ContextLengthError, False),
        (FaultType.CONTENT_FILTER, errors.ContentFilterError, False),
        (FaultType.INVALID_REQUEST, errors.InvalidRequestError, False),
    ],
)
async def test_each_fault_is_its_typed_error_and_the_pool_goes_on(
    fault: FaultType,
    kind: type[errors.ModelError],
    maybe_paid: bool,
    stream: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "MAX_BODY", 2**20)
    server = LoopbackServer(echo, faults=FaultPlan().at(1, PlannedFault(fault, 7.0, 60.0, pause=0.05)))
    waits = fault in {FaultType.TIMEOUT, FaultType.SLOW_BODY, FaultType.SLOW_LORIS}
    async with connected(server, timeout=0.3 if waits else 5.0) as model:
        with pytest.raises(errors.ModelError) as caught:
            await model.complete(HELLO, key="k", stream=stream)
        assert type(caught.value) is kind
        assert caught.value.maybe_paid is maybe_paid
        if fault in {FaultType.RATE_LIMITED, FaultType.OVERLOADED}:
            assert caught.value.retry_after == 7.0
        assert server.counts.requests == 1, "nothing is resent behind the caller's back"
        reply = await model.complete(HELLO, key="k", stream=stream)
        assert reply == ModelReply((Choice("Hello there!"),), Usage(1, 2, 0, 2), "scripted")
    assert server.counts.by_key["k"] == 1 + fault.paid


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", [FaultType.WRONG_USAGE, FaultType.NO_USAGE])
async def test_unusable_usage_counts_zero_and_is_noted(fault: FaultType, stream: bool) -> None:
    async with connected(LoopbackServer(echo, faults=FaultPlan().at(1, fault))) as model:
        assert (await model.complete(HELLO, stream=stream)).usage == Usage(calls=1)
        assert model.usage_gaps == 1
        assert (await model.complete(HELLO)).usage.tokens > 0
        assert model.usage_gaps == 1


async def test_a_slow_body_within_the_deadline_is_an_answer() -> None:
    plan = FaultPlan().at(1, PlannedFault(FaultType.SLOW_BODY, seconds=0.1))
    async with connected(LoopbackServer(echo, faults=plan)) as model:
        assert (await model.complete(HELLO)).choices == (Choice("Hello there!"),)


async def test_a_wrong_key_and_an_unknown_model() -> None:
    server = LoopbackServer(echo, api_key="right-key", models=["other"])
    async with connected(server, api_key="wrong-key") as model:
        with pytest.raises(errors.AuthenticationError) as caught:
            await model.complete(HELLO)
        assert "wrong-key" not in caught.value.message
    async with connected(LoopbackServer(echo, models=["other"])) as model:
        with pytest.raises(errors.UnknownModelError, match="scripted"):
            await model.complete(HELLO)


async def test_nobody_listens_and_no_such_host() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with open_session(1) as session:
            for url in (f"http://127.0.0.1:{unused.getsockname()[1]}/v1", "http://no-such-host.invalid/v1"):
                with pytest.raises(errors.ConnectError) as caught:
                    await OpenAIModel(url, "m", session=session).complete(HELLO)
                assert not caught.value.maybe_paid


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(b"<html>log in</html>", "text/html"), errors.MalformedReplyError),
        (http(b"[]"), errors.MalformedReplyError),
        (http(b'{"choices": []}'), errors.MalformedReplyError),
        (http(b'{"choices": null}'), errors.MalformedReplyError),
        (http(b'{"choices": [{"message": null}]}'), errors.MalformedReplyError),
        (http(b'{"error": {"message": "later", "code": 429}}'), errors.RateLimitedError),
        (http(b'{"error": {"message": "upstream"}}'), errors.MalformedReplyError),
        (http(b""), errors.MalformedReplyError),
        (http(b'data: {"error": {"code": 429}}\n\n', "text/event-stream"), errors.MalformedReplyError),
        (b"SSH-2.0-OpenSSH\r\n", errors.MalformedReplyError),
        (b"", errors.ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", errors.MalformedReplyError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc", errors.MalformedReplyError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", errors.ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", errors.ConnectionLostError),
        (b"HTTP/1.1 204 X\r\n\r\n", errors.MalformedReplyError),
        (b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", errors.InvalidRequestError),
        (b"HTTP/1.1 307 X\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n", errors.InvalidRequestError),
    ],
)
async def test_what_is_no_completion(answer: bytes, kind: type[errors.ModelError]) -> None:
    async with raw_server(answer) as url, open_session(1) as session:
        with pytest.raises(errors.ModelError) as caught:
            await OpenAIModel(url, "m", session=session).complete(HELLO)
        assert type(caught.value) is kind


async def test_an_endless_body_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_BODY", 1000)
    async with raw_server(http(b" " * 5000)) as url, open_session(1) as session:
        with pytest.raises(errors.MalformedReplyError, match="larger"):
            await OpenAIModel(url, "m", session=session).complete(HELLO)


@given(
    st.binary(max_size=60) | st.sampled_from([b'{"choices":[{"message":{"content":3}}]}', b'{"choices":{}}'])
)
@settings(max_examples=25, deadline=None)
def test_no_body_escapes_the_typed_errors(body: bytes) -> None:
    async def main() -> None:
        async with raw_server(http(body)) as url, open_session(1) as session:
            with pytest.raises(errors.ModelError):
                await OpenAIModel(url, "m", session=session).complete(HELLO)

    anyio.run(main)


def test_credentials_do_not_belong_into_the_url() -> None:
    with pytest.raises(errors.ConfigError, match="api_key_env") as caught:
        OpenAIModel("http://me:secret@host/v1", "m", session=None)  # type: ignore[arg-type]
    assert "secret" not in caught.value.message


async def test_a_proxy_of_the_environment_gets_the_request_and_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads: list[bytes] = []

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            heads.append(await stream.receive())
            await stream.send(http(b'{"choices": [{"message": {"content": "a"}}]}'))

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    async with open_session(1) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        model = OpenAIModel("http://api.invalid/v1", "m", session=session)
        assert (await model.complete(HELLO, key="k")).choices == (Choice("a"),)
        tasks.cancel_scope.cancel()
    await listener.aclose()
    (head,) = heads
    assert head.startswith(b"POST http://api.invalid/v1/chat/completions HTTP/1.1\r\nHost: api.invalid\r\n")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in head


async def test_what_a_request_consists_of() -> None:
    heads: list[bytes] = []

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            heads.append(await stream.receive())
            await stream.send(
                http(gzip.compress(b'{"choices": [{"message": {"content": "a"}}]}')).replace(
                    b"Connection", b"Content-Encoding: gzip\r\nConnection"
                )
            )

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
    async with open_session(1) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        model = OpenAIModel(f"http://127.0.0.1:{port}/v1", "m", session=session, api_key="ä-key")
        assert (await model.complete(HELLO, key="run/ü")).choices == (Choice("a"),), (
            "compressed, though unasked"
        )
        tasks.cancel_scope.cancel()
    await listener.aclose()
    head, _, body = heads[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert dict(line.split(": ", 1) for line in lines) == {
        "Host": f"127.0.0.1:{port}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "tfgrpo",
        "Content-Type": "application/json",
        "Authorization": "Bearer ä-key",
        "Content-Length": str(len(body)),
        "Idempotency-Key": "run/%C3%BC",
    }
    assert body == b'{"model":"m","messages":[{"role":"user","content":"Hello there"}]}'


def test_a_key_with_a_line_break_is_refused_and_not_shown() -> None:
    with pytest.raises(errors.ConfigError, match="line break") as caught:
        OpenAIModel("http://host/v1", "m", session=None, api_key="secret\n")  # type: ignore[arg-type]
    assert "secret" not in caught.value.message


async def test_a_request_above_a_megabyte_is_sent_without_a_warning() -> None:
    async with connected(LoopbackServer(lambda request: str(len(request.messages[0].content)))) as model:
        asked = ModelRequest((Message("user", "x" * 3_000_000),))
        assert (await model.complete(asked)).choices == (Choice("3000000"),)


# --- group requests and schemas ----------------------------------------------------------------------------


async def test_a_refused_group_request_is_remembered() -> None:
    server = LoopbackServer(echo, supports_n=False)
    async with connected(server) as model:
        assert model.group_limit is None
        for _ in range(2):
            with pytest.raises(GroupRequestUnsupportedError) as caught:
                await model.complete(GROUP)
            assert not caught.value.maybe_paid
        assert model.group_limit == 1
        assert server.counts.requests == 1, "the second refusal needs no exchange"
        assert len((await model.complete(HELLO)).choices) == 1


async def test_fewer_choices_than_asked_end_group_requests_and_were_paid() -> None:
    async with connected(LoopbackServer(echo, faults=FaultPlan().at(1, FaultType.WRONG_COUNT))) as model:
        with pytest.raises(GroupRequestUnsupportedError) as caught:
            await model.complete(GROUP)
        assert caught.value.maybe_paid
        assert model.group_limit == 1


async def test_always_takes_a_refusal_as_an_error_and_never_sends_none() -> None:
    server = LoopbackServer(echo, supports_n=False)
    async with connected(server, group_requests="always") as model:
        with pytest.raises(errors.InvalidRequestError) as caught:
            await model.complete(GROUP)
        assert type(caught.value) is errors.InvalidRequestError
        assert model.group_limit is None
    async with connected(LoopbackServer(echo), group_requests="never") as model:
        assert model.group_limit == 1


async def test_another_400_of_a_group_request_is_not_about_groups() -> None:
    async with connected(LoopbackServer(echo, faults=FaultPlan().at(1, FaultType.INVALID_REQUEST))) as model:
        with pytest.raises(errors.InvalidRequestError):
            await model.complete(GROUP)
        assert model.group_limit is None


async def test_a_refused_schema_is_asked_for_in_words_from_then_on() -> None:
    server = LoopbackServer(echo, supports_schema=False)
    async with connected(server) as model:
        request = ModelRequest(HELLO.messages, response_schema=SCHEMA)
        for exchanges in (2, 3):
            assert "JSON schema" in (await model.complete(request)).choices[0].content
            assert server.counts.requests == exchanges
    assert server.counts.served == 2
    async with connected(LoopbackServer(echo, supports_schema=False), structured="json_schema") as model:
        with pytest.raises(errors.InvalidRequestError):
            await model.complete(request)


async def test_the_recount_replaces_the_servers_output_count_of_a_group() -> None:
    async def recount(texts: Sequence[str]) -> int:
        return 100 * len(texts)

    hook: Callable[[Sequence[str]], Awaitable[int]] = recount
    async with connected(LoopbackServer(echo), recount=hook) as model:
        assert (await model.complete(GROUP)).usage.output_tokens == 300
        assert (await model.complete(HELLO)).usage.output_tokens == 2


# --- cancellation ------------------------------------------------------------------------------------------


async def test_cancelling_aborts_the_exchange_and_leaves_the_pool_usable() -> None:
    ended = anyio.Event()

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            arrived.set()
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            ended.set()

    arrived = anyio.Event()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()}/v1"
    async with open_session(1) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        async with anyio.create_task_group() as calls:
            calls.start_soon(OpenAIModel(url, "m", session=session).complete, HELLO)
            await arrived.wait()
            calls.cancel_scope.cancel()
        with anyio.fail_after(5):
            await ended.wait()
        async with LoopbackServer(echo) as server:
            # The pool holds one connection only: it works again if and only if that slot came back.
            reply = await OpenAIModel(server.base_url, "scripted", session=session, timeout=5).complete(HELLO)
            assert reply.choices == (Choice("Hello there!"),)
        tasks.cancel_scope.cancel()
    await listener.aclose()


# --- exact counts under faults -----------------------------------------------------------------------------


@given(seed=st.integers(0, 99), rate=st.floats(0, 0.9))
@settings(max_examples=6, deadline=None)
def test_the_servers_counts_are_exact_and_answers_do_not_depend_on_faults(seed: int, rate: float) -> None:
    async def main() -> None:
        plan = FaultPlan.random(seed, rate, attempts=3)
        answered: dict[str, bool] = {}

        async def call(model: OpenAIModel, place: int) -> None:
            request, key = (
                ModelRequest((Message("user", with_key("Where?", place)),), seed=place),
                f"k{place}",
            )
            for _ in range(4):
                try:
                    reply = await model.complete(request, key=key)
                except errors.ModelError as error:
                    if not error.retryable:
                        raise
                else:
                    answered[key] = reply.choices[0].content == tickets(request)
                    return
            raise AssertionError("the fourth attempt cannot break")

        server = LoopbackServer(tickets, faults=plan)
        async with connected(server) as model, anyio.create_task_group() as tasks:
            for place in range(20):
                tasks.start_soon(call, model, place)
        assert len(answered) == 20
        assert all(answered.values())
        counts = server.counts
        assert counts.served == counts.by_key.total() >= 20
        assert counts.requests == 20 + counts.rate_limited + counts.errors + counts.broken

    anyio.run(main)
