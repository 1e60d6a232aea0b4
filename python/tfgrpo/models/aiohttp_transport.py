"""The transport on aiohttp, with what it would do anew at every request done once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn, Self

import aiohttp
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict, istr
from yarl import URL

from tfgrpo.models.transport import (
    CONNECT_TIMEOUT,
    KEEP_ALIVE,
    LostError,
    NotConnectedError,
    NotHttpError,
    TooLargeError,
    environment_proxy,
)

_KEY = istr("Idempotency-Key")
_LARGE = 2**20

#: Sent by us so that aiohttp does not work them out at each request. No compression: undoing it costs more than
#: the few kilobytes of an answer do. A body that is compressed all the same is still understood.
_DEFAULTS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tfgrpo"}

# Everything that has to be converted, in the order in which it is told apart.
_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)
_FOREIGN = (aiohttp.ClientError, ConnectionError)


def _convert(error: Exception) -> NoReturn:
    if isinstance(error, _UNSENT):
        raise NotConnectedError(_text(error)) from None
    if isinstance(error, aiohttp.ClientResponseError):
        raise NotHttpError(error.message) from None
    raise LostError(_text(error)) from None


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


class AiohttpSession:
    """A pool of aiohttp connections (implements `Session`).

    Each target has a client session of its own, for the headers; the connections are shared by all.
    """

    def __init__(self, concurrency: int) -> None:
        self._connector = aiohttp.TCPConnector(
            limit=concurrency, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=300
        )
        self._clients: list[aiohttp.ClientSession] = []

    def target(self, url: URL, headers: Mapping[str, str]) -> AiohttpTarget:
        """See `Session.target`."""
        client = aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            headers=CIMultiDict(_DEFAULTS | dict(headers)),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._clients.append(client)
        return AiohttpTarget(client, url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.close()
        await self._connector.close()


class AiohttpTarget:
    """One URL (implements `Target`)."""

    def __init__(self, client: aiohttp.ClientSession, url: URL) -> None:
        self._post = client.post
        self._url = url
        self._proxy, self._proxy_headers = environment_proxy(url)

    async def post(self, body: bytes, key: str = "") -> AiohttpResponse:
        """See `Target.post`."""
        try:
            response = await self._post(
                self._url,
                data=body if len(body) <= _LARGE else _large(body),
                headers=CIMultiDict(((_KEY, key),)) if key else None,
                allow_redirects=False,  # a followed 307 would send the call twice
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
            )
        except _FOREIGN as error:
            _convert(error)
        return AiohttpResponse(response)


def _large(body: bytes) -> BytesPayload:
    """A body of which aiohttp would say that it is large, which is known and meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        return BytesPayload(body, content_type="application/json")


async def _gather(content: aiohttp.StreamReader, limit: int) -> bytes:
    body = bytearray()
    while piece := await content.readany():
        body += piece
        if len(body) > limit:
            raise TooLargeError
    return bytes(body)


class AiohttpResponse:
    """An answer (implements `Response`)."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers

    @property
    def ended(self) -> bool:
        """See `Response.ended`."""
        return self._response.content.at_eof()

    async def read(self, limit: int) -> bytes:
        """See `Response.read`."""
        response = self._response
        length = response.content_length
        try:
            if length is not None and length <= limit and "Content-Encoding" not in response.headers:
                return await response.read()
            return await _gather(response.content, limit)
        except _FOREIGN as error:
            response.close()
            _convert(error)
        except BaseException:
            response.close()
            raise

    async def chunk(self) -> bytes:
        """See `Response.chunk`."""
        try:
            return await self._response.content.readany()
        except _FOREIGN as error:
            self._response.close()
            _convert(error)
        except BaseException:
            self._response.close()
            raise

    def close(self) -> None:
        """See `Response.close`."""
        self._response.close()
