"""An OpenAI-style chat completions server on 127.0.0.1 that answers by script and counts what it served.

A call is *served* when the server does the paid work: that moment is counted, and written to the log, before
the latency passes and before any byte of the answer is sent, so a client that dies meanwhile still pays.
"""

from __future__ import annotations

import os
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from aiohttp import web

from tfgrpo.testing.faults import Call, FaultPlan, FaultType, PlannedFault
from tfgrpo.testing.loopback import endpoint
from tfgrpo.testing.scripts import Script, answers, fingerprint
from tfgrpo.types import ModelRequest

_PIECES = 8


class Served(msgspec.Struct, frozen=True):
    """One line of the log: the call's idempotency key, the hash of its request, and its `n`."""

    key: str
    request: str
    n: int


class Counts(msgspec.Struct):
    """What the server did since it started; `GET /counts` answers it as JSON.

    `requests` arrived as chat completions, `served` of them were paid; `by_key` counts the served ones by
    idempotency key; `rate_limited` and `errors` are answers with status 429 and with any other status but
    200; `broken` are connections cut or bodies spoilt by plan; `peak` is the most calls at one time.
    """

    requests: int = 0
    served: int = 0
    by_key: Counter[str] = msgspec.field(default_factory=Counter)
    rate_limited: int = 0
    errors: int = 0
    broken: int = 0
    peak: int = 0


class LoopbackServer:
    """The server; an async context manager.

    Args:
        script: request to answers; see `tfgrpo.testing.scripts`.
        faults: which calls break; attempts are counted per idempotency key, per request where there is none.
        latency: seconds before an answer, or a function of the request.
        supports_n: False refuses `n` > 1 with a 400.
        supports_schema: False refuses `response_format` with a 400.
        api_key: the bearer token it wants; None wants none.
        models: the names it serves.
        log: a file to which one line per served call is appended (`read_log` reads it).
        port: 0 takes a free one.

    `base_url` is known after entering, `counts` always. Leaving closes every connection at once; calls in
    flight see it break. `GET /v1/models` and `GET /health` answer as such servers do.
    """

    def __init__(
        self,
        script: Script,
        *,
        faults: FaultPlan | None = None,
        latency: float | Callable[[ModelRequest], float] = 0.0,
        supports_n: bool = True,
        supports_schema: bool = True,
        api_key: str | None = None,
        models: Iterable[str] = ("scripted",),
        log: Path | str | None = None,
        port: int = 0,
    ) -> None:
        self.counts = Counts()
        self.base_url = ""
        self._script = script
        self._faults = faults or FaultPlan()
        self._latency = latency
        self._supports_n = supports_n
        self._supports_schema = supports_schema
        self._api_key = api_key
        self._models = tuple(models)
        self._log_path = log
        self._log: int | None = None
        self._port = port
        self._attempts: Counter[str] = Counter()
        self._active = 0
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        if self._log_path is not None:
            self._log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # A handler ends with its client, so that a planned hang does not outlive the test.
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            with anyio.CancelScope(shield=True):
                await self._runner.cleanup()
        if self._log is not None:
            os.close(self._log)
            self._log = None

    # --- one request -------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                self.counts.requests += 1
                self._active += 1
                self.counts.peak = max(self.counts.peak, self._active)
                try:
                    return await self._complete(request)
                finally:
                    self._active -= 1
            case "GET", "/v1/models":
                return _json(endpoint.models_body(self._models))
            case "GET", "/health":
                return _json(b'{"status":"ok"}')
            case "GET", "/counts":
                return _json(msgspec.json.encode(self.counts))
            case _:
                return self._refuse(404, f"there is nothing at {request.path}", "not_found")

    async def _complete(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if self._api_key is not None and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            return self._refuse(401, "Incorrect API key provided", "invalid_api_key")
        try:
            asked, model = endpoint.decode_request(body)
        except ValueError as error:
            return self._refuse(400, f"the body is no chat completion request: {error}", "invalid_request")
        if model not in self._models:
            return self._refuse(404, f"The model `{model}` does not exist", "model_not_found")
        if asked.n > 1 and not self._supports_n:
            return self._refuse(400, "Invalid value for n: only n = 1 is supported", "invalid_request", "n")
        if asked.response_schema is not None and not self._supports_schema:
            message = "This server does not support response_format of type json_schema"
            return self._refuse(400, message, "invalid_request", "response_format")
        digest = fingerprint(asked)
        key = urllib.parse.unquote(request.headers.get("Idempotency-Key", "")) or digest
        self._attempts[key] += 1
        fault = self._faults.decide(Call(key, self._attempts[key], self.counts.requests, asked))
        if fault is not None and not fault.type.paid:
            return self._break_unpaid(fault, request)
        try:
            choices = answers(self._script, asked)
        except Exception as error:  # noqa: BLE001 - the script is the user's: its failure is a 500, not ours
            return self._refuse(500, f"the script raised {type(error).__name__}: {error}", "script_error")
        self._serve(Served(key, digest, asked.n))
        latency = self._latency(asked) if callable(self._latency) else self._latency
        if latency > 0:
            await anyio.sleep(latency)
        if fault is not None:
            return await self._break_paid(fault, request, asked, choices, model)
        return _json(endpoint.encode_reply(choices, endpoint.usage(asked, choices), model))

    def _serve(self, served: Served) -> None:
        """Count and log one paid call; one unbuffered append a line, so a killed process loses none."""
        self.counts.served += 1
        self.counts.by_key[served.key] += 1
        if self._log is not None:
            os.write(self._log, msgspec.json.encode(served) + b"\n")

    def _refuse(
        self, status: int, message: str, code: str, param: str = "", retry_after: float | None = None
    ) -> web.Response:
        if status == 429:
            self.counts.rate_limited += 1
        else:
            self.counts.errors += 1
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        return web.Response(
            status=status,
            body=endpoint.encode_error(message, code, param),
            headers=headers,
            content_type="application/json",
        )

    def _break_unpaid(self, fault: PlannedFault, request: web.BaseRequest) -> web.Response:
        if fault.type in {FaultType.CONNECT, FaultType.RESET_BEFORE}:
            return self._reset(request)
        status, code, message = _REFUSALS[fault.type]
        return self._refuse(status, message, code, retry_after=fault.retry_after)

    async def _break_paid(
        self, fault: PlannedFault, request: web.BaseRequest, asked: ModelRequest, choices: Any, model: str
    ) -> web.StreamResponse:
        body = endpoint.encode_reply(choices, endpoint.usage(asked, choices), model)
        match fault.type:
            case FaultType.RESET_AFTER:
                return self._reset(request)
            case FaultType.TIMEOUT:
                self.counts.broken += 1
                await anyio.sleep(fault.seconds)
                return _json(body)
            case FaultType.CUT_BODY:
                self.counts.broken += 1
                return await _stream(request, body, cut=True)
            case FaultType.SLOW_BODY:
                return await _stream(request, body, pause=fault.seconds / _PIECES)
            case FaultType.MALFORMED:
                self.counts.broken += 1
                return _json(body[: len(body) // 2])
            case FaultType.WRONG_COUNT:
                self.counts.broken += 1
                return _json(endpoint.encode_reply(choices[:-1], endpoint.usage(asked, choices), model))
            case FaultType.WRONG_USAGE:
                nonsense = {"prompt_tokens": -3, "completion_tokens": "many", "total_tokens": None}
                return _json(endpoint.encode_reply(choices, nonsense, model))
            case _:
                return _json(endpoint.encode_reply(choices, None, model))

    def _reset(self, request: web.BaseRequest) -> web.Response:
        self.counts.broken += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


_REFUSALS = {
    FaultType.RATE_LIMITED: (429, "rate_limit_exceeded", "Rate limit reached"),
    FaultType.SERVER_ERROR: (500, "internal_error", "The server had an error"),
    FaultType.OVERLOADED: (503, "overloaded", "The engine is currently overloaded"),
    FaultType.AUTHENTICATION: (401, "invalid_api_key", "Incorrect API key provided"),
    FaultType.QUOTA: (429, "insufficient_quota", "You exceeded your current quota"),
    FaultType.UNKNOWN_MODEL: (404, "model_not_found", "The model does not exist"),
    FaultType.CONTEXT_LENGTH: (400, "context_length_exceeded", "The maximum context length is 8 tokens"),
    FaultType.CONTENT_FILTER: (400, "content_filter", "The prompt was filtered"),
    FaultType.INVALID_REQUEST: (400, "invalid_request", "This request is not accepted"),
}


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def _stream(
    request: web.BaseRequest, body: bytes, *, pause: float = 0.0, cut: bool = False
) -> web.StreamResponse:
    """Send a body in pieces, or its first half and then nothing more."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    if cut:
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    size = -(-len(body) // _PIECES)
    for start in range(0, len(body), size):
        await anyio.sleep(pause)
        await response.write(body[start : start + size])
    await response.write_eof()
    return response


def read_log(path: Path | str) -> list[Served]:
    """The served calls that a log file holds, in order."""
    return [msgspec.json.decode(line, type=Served) for line in Path(path).read_bytes().splitlines()]
