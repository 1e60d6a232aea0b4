"""The client of any OpenAI-compatible chat completions endpoint: one exchange a call, no hidden retry.

Every foreign exception is converted here. Retrying, pacing and splitting group requests belong to the engine,
because the journal pays by the exchange.
"""

from __future__ import annotations

import hashlib
import logging
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NoReturn

import aiohttp
import anyio
import msgspec
from yarl import URL

from tfgrpo.config import PriceSection
from tfgrpo.errors import (
    ConfigError,
    ConnectError,
    ConnectionLostError,
    MalformedReplyError,
    ModelError,
    ModelTimeoutError,
)
from tfgrpo.models import failures, wire
from tfgrpo.models.model import GroupRequestUnsupportedError, Observer
from tfgrpo.models.pricing import priced
from tfgrpo.types import Choice, ModelReply, ModelRequest, Usage

_LOG = logging.getLogger(__name__)

#: A body beyond this is no chat completion; reading on would only fill the memory.
MAX_BODY = 64 * 2**20

_CONNECT_TIMEOUT = 30.0
_KEY_LENGTH = 255
_REFUSALS = {400, 422, 501}


def open_session(concurrency: int) -> aiohttp.ClientSession:
    """Open the connection pool that all models of a run share; the caller closes it.

    Args:
        concurrency: the most connections at once; a call beyond it waits for a free one.

    Must be called inside a running event loop. Idle connections are kept for 4 s, less than the 5 s after
    which common servers close theirs: a request on a connection the server just closed would be lost, and
    nobody may resend it silently. (aiohttp resends idempotent methods only; POST is not one.)
    """
    connector = aiohttp.TCPConnector(limit=concurrency, keepalive_timeout=4.0, ttl_dns_cache=300)
    # Deadlines belong to anyio scopes; only the connect phase has its own, since it is surely unpaid.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint (implements `Model`).

    Args:
        base_url: the API's root, usually ending in `/v1`.
        name: the model's name at the endpoint.
        session: the shared pool, from `open_session`; it is not closed here.
        api_key: sent as a bearer token and in no message; None sends none.
        timeout: seconds for one exchange, connecting included.
        group_requests: "never" sends n = 1 only; "auto" sends `n` until the endpoint refuses it (a 4xx about
            `n`, or fewer choices than asked), then `group_limit` is 1; "always" takes a refusal as an error.
        structured: how `response_schema` is asked for: by `response_format` ("json_schema"), in words
            ("prompt"), or "auto": by `response_format` until the endpoint refuses it, in words from then on.
            The request that meets the refusal is sent a second time inside the same `complete`; the refused
            exchange was a 4xx and cost nothing.
        price: dollars per million tokens for `Usage.usd`.
        group_limit: the largest `n` the endpoint takes, where it is known beforehand.
        recount: counts the tokens of the given answers. For servers whose usage covers only one of n choices
            (llama.cpp does that): it is asked whenever n > 1 and replaces the server's output count.

    Raises:
        ConfigError: `base_url` carries a user name or password.
    """

    def __init__(
        self,
        base_url: str,
        name: str,
        *,
        session: aiohttp.ClientSession,
        api_key: str | None = None,
        timeout: float = 600.0,
        group_requests: Literal["auto", "always", "never"] = "auto",
        structured: Literal["auto", "json_schema", "prompt"] = "auto",
        price: PriceSection | None = None,
        group_limit: int | None = None,
        recount: Callable[[Sequence[str]], Awaitable[int]] | None = None,
    ) -> None:
        url = URL(base_url.rstrip("/") + "/chat/completions")
        if url.user is not None or url.password is not None:
            raise ConfigError(
                "model.base_url: contains a user name or password; put the key in an environment variable "
                "and its name in model.api_key_env."
            )
        self.name = name
        self.usage_gaps = 0
        self._url = url
        self._session = session
        self._api_key = api_key
        self._timeout = timeout
        self._group_requests = group_requests
        self._group_limit = 1 if group_requests == "never" else group_limit
        self._structured = structured
        self._schema_in_prompt = structured == "prompt"
        self._price = price
        self._recount = recount
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._proxy, self._proxy_headers = _environment_proxy(url)

    @property
    def group_limit(self) -> int | None:
        """The largest `n` worth sending; see `Model.group_limit`."""
        return self._group_limit

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        """One attempt; see `Model.complete` for errors and cancellation.

        `usage_gaps` counts the replies whose usage was missing or nonsense: their tokens count as zero.
        """
        if request.n > 1 and self._group_limit == 1:
            raise GroupRequestUnsupportedError(
                f"{self._url}: group requests are off for this endpoint (n = {request.n}); send single ones."
            )
        try:
            with anyio.fail_after(self._timeout):
                reply = await self._attempt(request, key, observer)
        except TimeoutError:
            raise ModelTimeoutError(
                f"{self._url}: no complete answer within {self._timeout:g} s; raise limits.request_timeout, "
                "or lower limits.concurrency if the endpoint is overloaded.",
                maybe_paid=True,
            ) from None
        if observer is not None:
            observer.first_token()
        return reply

    async def aclose(self) -> None:
        """Do nothing: the pool belongs to whoever opened it."""

    async def _attempt(self, request: ModelRequest, key: str, observer: Observer | None) -> ModelReply:
        in_prompt = self._schema_in_prompt
        status, headers, body = await self._exchange(request, key, observer, in_prompt)
        if (
            self._structured == "auto"
            and request.response_schema is not None
            and not in_prompt
            and status in _REFUSALS
            and failures.is_about_schema(wire.decode_error(body))
        ):
            _LOG.info("response_format_refused", extra={"model": self.name, "status": status})
            self._schema_in_prompt = True
            status, headers, body = await self._exchange(request, key, observer, schema_in_prompt=True)
        if not 200 <= status < 300:
            self._fail(status, headers, wire.decode_error(body), request)
        return await self._read(headers, body, request)

    async def _exchange(
        self, request: ModelRequest, key: str, observer: Observer | None, schema_in_prompt: bool
    ) -> tuple[int, Any, bytes]:
        """Send and receive: status, headers, body; every transport failure as its typed error."""
        content = wire.encode_request(request, self.name, schema_in_prompt=schema_in_prompt)
        headers = self._headers | {"Idempotency-Key": _header_key(key)} if key else self._headers
        if observer is not None:
            observer.sent()
        try:
            async with self._session.post(
                self._url,
                data=content,
                headers=headers,
                allow_redirects=False,  # a followed 307 would send the call twice
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
            ) as response:
                if observer is not None:
                    observer.answered(response.status, ())
                return response.status, response.headers, await self._body(response)
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ServerFingerprintMismatch,
            aiohttp.ClientHttpProxyError,
            aiohttp.InvalidURL,
        ) as error:
            raise ConnectError(
                f"{self._url}: no connection ({self._quote(error)}); check that the endpoint is up and that "
                "model.base_url is right. Nothing was sent."
            ) from None
        except aiohttp.ClientResponseError as error:
            raise MalformedReplyError(
                f"{self._url}: the answer is not HTTP ({self._quote(error.message)}); check model.base_url.",
                maybe_paid=True,
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ConnectionLostError(
                f"{self._url}: the connection broke before the answer was complete ({self._quote(error)}); "
                "the call may have been paid. Another attempt may succeed.",
                maybe_paid=True,
            ) from None

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_BODY:
                self._malformed(f"its body is larger than {MAX_BODY >> 20} MiB")
        return bytes(body)

    async def _read(self, headers: Any, body: bytes, request: ModelRequest) -> ModelReply:
        """A 2xx body as a reply of exactly n choices."""
        try:
            value = wire.loads(body)
        except ValueError as error:
            kind = headers.get("Content-Type", "no content type")
            shown = self._quote(body[:1024].decode("utf-8", "replace"))
            self._malformed(f'its body ({kind}) is not JSON ({error}): "{shown}"')
        problem = wire.error_of(value)
        if problem is not None and isinstance(value, dict) and not value.get("choices"):
            # Some gateways answer 200 and put the upstream's status into the error.
            status = int(problem.code) if problem.code.isdecimal() else 0
            if 400 <= status < 600:
                self._fail(status, headers, problem, request)
            self._malformed(f'it holds an error: "{self._quote(problem.message)}"')
        try:
            completion = wire.decode_completion(value)
        except ValueError as error:
            self._malformed(f"it is no chat completion: {self._quote(error)}")
        got = len(completion.choices)
        if self._group_requests == "auto" and 0 < got < request.n:
            self._refuse_groups(request, f"answered with {got} of {request.n} choices", paid=True)
        if got != request.n:
            self._malformed(f"it holds {got} choices and {request.n} were asked for")
        usage, known = completion.usage, completion.usage_known
        if self._recount is not None and request.n > 1:
            try:
                output = await self._recount([_text(choice) for choice in completion.choices])
            except ModelError as error:  # the answers are paid: a count that is too low is the lesser loss
                _LOG.warning("%s: the answers could not be counted: %s", self._url, error)
            else:
                usage = msgspec.structs.replace(usage, output_tokens=output)
        if not known:
            self._note_usage_gap()
        return ModelReply(completion.choices, self._priced(usage), completion.model or self.name)

    def _fail(self, status: int, headers: Any, problem: wire.WireError, request: ModelRequest) -> NoReturn:
        error = failures.failure(
            status, headers, problem, place=str(self._url), model=self.name, secret=self._api_key
        )
        refused = status in _REFUSALS and request.n > 1 and self._group_requests == "auto"
        if refused and failures.is_about_group(problem):
            self._refuse_groups(request, f"refused n = {request.n} ({error.message})", status=status)
        raise error

    def _refuse_groups(
        self, request: ModelRequest, what: str, *, status: int | None = None, paid: bool = False
    ) -> NoReturn:
        self._group_limit = 1
        _LOG.info("group_requests_refused", extra={"model": self.name, "n": request.n})
        raise GroupRequestUnsupportedError(
            f"{self._url}: the endpoint {what}; single requests are sent from now on "
            '(set model.group_requests = "never" to begin with them).',
            status=status,
            maybe_paid=paid,
        )

    def _malformed(self, what: str) -> NoReturn:
        raise MalformedReplyError(
            f"{self._url}: the answer of {self.name} is unusable: {what}. If it happens every time, "
            "model.base_url is not an OpenAI-compatible API.",
            maybe_paid=True,
        )

    def _priced(self, usage: Usage) -> Usage:
        return priced(usage, self._price)

    def _note_usage_gap(self) -> None:
        self.usage_gaps += 1
        if self.usage_gaps == 1:
            _LOG.warning("usage_missing", extra={"model": self.name})

    def _quote(self, text: object) -> str:
        return failures.quote(str(text) or type(text).__name__, self._api_key)


def _text(choice: Choice) -> str:
    """All that the model wrote for a choice: what a token count has to cover."""
    return choice.content + "".join(call.name + call.arguments for call in choice.tool_calls)


def _header_key(key: str) -> str:
    """A logical key as a header value: ASCII, one line, at most 255 characters."""
    encoded = urllib.parse.quote(key, safe="/:=,;@+ ")
    return encoded if len(encoded) <= _KEY_LENGTH else hashlib.sha256(key.encode()).hexdigest()


def _environment_proxy(url: URL) -> tuple[str | None, dict[str, str] | None]:
    """The proxy that the environment names for a URL, and its credentials; none for this machine itself.

    aiohttp's own `trust_env` would ask a thread (and read ~/.netrc) at every request.
    """
    host = url.host or ""
    if host in {"localhost", "127.0.0.1", "::1"} or urllib.request.proxy_bypass(host):
        return None, None
    found = urllib.request.getproxies().get(url.scheme)
    if not found:
        return None, None
    proxy = URL(found if "://" in found else f"http://{found}")
    if proxy.user is None:
        return str(proxy), None
    credentials = b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return str(proxy.with_user(None)), {"Proxy-Authorization": f"Basic {credentials}"}
