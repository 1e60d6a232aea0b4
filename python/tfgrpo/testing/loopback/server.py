"""An OpenAI-style chat completions server on 127.0.0.1 that answers by script and counts what it served.

A call is *served* when the server does the paid work: that moment is counted, and written to the log, before
the latency passes and before any byte of the answer is sent, so a client that dies meanwhile still pays.
"""

from __future__ import annotations

import os
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from aiohttp import web

from tfgrpo.testing.faults import Call, FaultPlan, FaultType, PlannedFault
from tfgrpo.testing.loopback import endpoint
from tfgrpo.testing.loopback.bodies import Body, abort
from tfgrpo.testing.loopback.rates import RatePlan, Rates
from tfgrpo.testing.scripts import Script, answers, fingerprint
from tfgrpo.types import Choice, ModelRequest

_NONSENSE = {"prompt_tokens": -3, "completion_tokens": "many", "total_tokens": None}


class Served(msgspec.Struct, frozen=True):
    """One line of the log: the call's idempotency key, the hash of its request, and its `n`."""

    key: str
    request: str
    n: int


class Counts(msgspec.Struct):
    """The counts of the server since it started; `GET /counts` answers it as JSON.

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
        supports_stream: False refuses `stream` with a 400.
        supports_stream_options: False refuses `stream_options` with a 400.
        rates: the rate limits, and how responses tell of them; None sets none.
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
        supports_stream: bool = True,
        supports_stream_options: bool = True,
        rates: RatePlan | None = None,
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
        self._supports_stream = supports_stream
        self._supports_stream_options = supports_stream_options
        self._rates = None if rates is None else Rates(rates)
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
        body = await request.content.read()  # `request.read` refuses more than a megabyte
        if self._api_key is not None and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            return self._refuse(401, "Incorrect API key provided", "invalid_api_key")
        try:
            call = endpoint.decode_request(body)
        except ValueError as error:
            return self._refuse(400, f"the body is no chat completion request: {error}", "invalid_request")
        refusal = self._unsupported(call)
        if refusal is not None:
            return refusal
        asked = call.request
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
        if self._rates is not None:
            tokens = endpoint.usage(asked, choices)["total_tokens"]
            wait = self._rates.take(tokens, anyio.current_time())
            if wait is not None:
                told = wait if self._rates.plan.retry_after else None
                return self._refuse(429, "Rate limit reached", "rate_limit_exceeded", retry_after=told)
        self._serve(Served(key, digest, asked.n))
        latency = self._latency(asked) if callable(self._latency) else self._latency
        if latency > 0:
            await anyio.sleep(latency)
        return await self._answer(fault, request, call, choices)

    def _unsupported(self, call: endpoint.Asked) -> web.Response | None:
        """The refusal of what this server does not have."""
        asked, param = call.request, ""
        if call.model not in self._models:
            return self._refuse(404, f"The model `{call.model}` does not exist", "model_not_found")
        if asked.n > 1 and not self._supports_n:
            message, param = "Invalid value for n: only n = 1 is supported", "n"
        elif asked.response_schema is not None and not self._supports_schema:
            message = "This server does not support response_format of type json_schema"
            param = "response_format"
        elif call.stream_usage is not None and not self._supports_stream_options:
            message = "Unknown field: stream_options"
        elif call.stream and not self._supports_stream:
            message = "This server does not support streaming"
        else:
            return None
        return self._refuse(400, message, "invalid_request", param)

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
        headers = self._rate_headers()
        if retry_after is not None:
            headers["Retry-After"] = f"{retry_after:g}"
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

    async def _answer(
        self,
        fault: PlannedFault | None,
        request: web.BaseRequest,
        call: endpoint.Asked,
        choices: tuple[Choice, ...],
    ) -> web.StreamResponse:
        """The answer to a paid call, as it is or broken by plan."""
        kind = None if fault is None else fault.type
        if kind in _BROKEN:
            self.counts.broken += 1
        said: Sequence[Choice] = choices[:-1] if kind is FaultType.WRONG_COUNT else choices
        usage: dict[str, Any] | None = endpoint.usage(call.request, choices)
        if kind is FaultType.WRONG_USAGE:
            usage = _NONSENSE
        elif kind is FaultType.NO_USAGE or (call.stream and not call.stream_usage):
            usage = None
        if call.stream:
            broken = kind is FaultType.MALFORMED_STREAM
            pieces = list(endpoint.encode_stream(said, usage, call.model, broken=broken))
        else:
            pieces = [endpoint.encode_reply(said, usage, call.model)]
        body = Body(pieces, stream=call.stream, headers=self._rate_headers())
        if fault is None:
            return await body.send(request)
        match kind:
            case FaultType.RESET_AFTER:
                abort(request)
                return web.Response()
            case FaultType.TIMEOUT:
                await anyio.sleep(fault.seconds)
            case FaultType.SLOW_BODY:
                return await body.send_slowly(request, fault.seconds)
            case FaultType.SLOW_LORIS:
                return await body.send_bytewise(request, fault.pause)
            case FaultType.LARGE_BODY | FaultType.HUGE_BODY:
                return await body.send_padded(request, endless=kind is FaultType.HUGE_BODY)
            case FaultType.CUT_BODY | FaultType.RESET_STREAM:
                return await body.send_half(request, reset=kind is FaultType.RESET_STREAM)
            case FaultType.MALFORMED:
                return await body.send_half(request, closed=False)
            case FaultType.MALFORMED_STREAM if not call.stream:
                return await body.send_half(request, closed=False)
            case _:
                pass
        return await body.send(request)

    def _rate_headers(self) -> dict[str, str]:
        return {} if self._rates is None else self._rates.headers(anyio.current_time())

    def _reset(self, request: web.BaseRequest) -> web.Response:
        self.counts.broken += 1
        abort(request)
        return web.Response()


_BROKEN = {kind for kind in FaultType if kind.paid and not kind.answered}

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


def read_log(path: Path | str) -> list[Served]:
    """The served calls that a log file holds, in order."""
    return [msgspec.json.decode(line, type=Served) for line in Path(path).read_bytes().splitlines()]
