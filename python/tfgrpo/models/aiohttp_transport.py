"""The transport on aiohttp: the pool, and the public way to send a request; `aiohttp_direct` is the short way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict, istr
from yarl import URL

from tfgrpo.models import aiohttp_direct
from tfgrpo.models.aiohttp_errors import FOREIGN, convert, gather
from tfgrpo.models.transport import CONNECT_TIMEOUT, KEEP_ALIVE, Session, Target, environment_proxy

_KEY = istr("Idempotency-Key")
_LARGE = 2**20

#: Sent by us so that aiohttp does not work them out at each request. No compression: undoing it costs more than
#: the few kilobytes of an answer do. A body that is compressed all the same is still understood.
_DEFAULTS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tfgrpo"}


class AiohttpSession:
    """A pool of aiohttp connections, shared by all targets (implements `Session`)."""

    def __init__(self, concurrency: int) -> None:
        self._connector = aiohttp.TCPConnector(
            limit=concurrency, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=300
        )
        self._clients: list[aiohttp.ClientSession] = []

    def target(self, url: URL, headers: Mapping[str, str]) -> Target:
        """See `Session.target`."""
        proxy, proxy_headers = environment_proxy(url)
        headers = _DEFAULTS | dict(headers)
        if proxy is None and url.scheme in {"http", "https"} and url.host and aiohttp_direct.possible():
            return aiohttp_direct.DirectTarget(self._connector, url, headers)
        if url.scheme == "http":  # aiohttp sends a proxy's headers with CONNECT only, so for https
            headers |= proxy_headers or {}
        client = aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            headers=CIMultiDict(headers),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._clients.append(client)
        return AiohttpTarget(client, url, proxy, proxy_headers)

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
    """One URL, with a client session of its own for its headers (implements `Target`)."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        url: URL,
        proxy: str | None,
        proxy_headers: dict[str, str] | None,
    ) -> None:
        self._post = client.post
        self._url = url
        self._proxy, self._proxy_headers = proxy, proxy_headers

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
        except FOREIGN as error:
            convert(error)
        return AiohttpResponse(response)


def _large(body: bytes) -> BytesPayload:
    """A body of which aiohttp would say that it is large, which is known and meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        return BytesPayload(body, content_type="application/json")


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
        try:
            body = await gather(response.content, limit)
        except FOREIGN as error:
            response.close()
            convert(error)
        except BaseException:
            response.close()
            raise
        response.release()
        return body

    async def chunk(self) -> bytes:
        """See `Response.chunk`."""
        try:
            return await self._response.content.readany()
        except FOREIGN as error:
            self._response.close()
            convert(error)
        except BaseException:
            self._response.close()
            raise

    def close(self) -> None:
        """See `Response.close`."""
        self._response.close()


def open_session(concurrency: int) -> Session:
    """Open the connection pool that all models of a run share; the caller closes it (`async with`).

    Args:
        concurrency: the most connections at once; a call beyond it waits for a free one.

    Must be called inside a running event loop.
    """
    return AiohttpSession(concurrency)
