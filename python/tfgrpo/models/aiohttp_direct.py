"""The short way through aiohttp: its connections and its parser, without its client session around every request.

A session builds a request object, merges headers and cookies, starts a task for writing and builds a response
object, anew for each call: three quarters of what a call costs. Here the head of a request is bytes prepared
once. Pool, DNS, TLS, parsing and decompression are aiohttp's. These are inner parts of aiohttp 3, so they are
checked before use, and `aiohttp_transport` goes the public way where they are not as expected.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from functools import cache

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from tfgrpo.models.aiohttp_errors import FOREIGN, convert, gather
from tfgrpo.models.transport import CONNECT_TIMEOUT, NotConnectedError

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
_CONTINUE, _SWITCHING = 100, 101


@cache
def possible() -> bool:
    """Tell whether this aiohttp has the inner parts as they are used here."""
    try:
        handler = inspect.signature(ResponseHandler.set_response_params).parameters
        connect = list(inspect.signature(aiohttp.TCPConnector.connect).parameters)
        request = inspect.signature(aiohttp.ClientRequest.__init__).parameters
    except (AttributeError, ValueError):
        return False
    has_parts = all(hasattr(ResponseHandler, name) for name in ("read", "should_close", "is_connected"))
    has_parts = has_parts and all(hasattr(Connection, name) for name in ("protocol", "release", "close"))
    wanted = {"read_until_eof", "auto_decompress"} <= handler.keys() and {"loop"} <= request.keys()
    return has_parts and wanted and connect == ["self", "req", "traces", "timeout"]


class DirectTarget:
    """One URL that is reached without a proxy (implements `Target`)."""

    def __init__(self, connector: aiohttp.TCPConnector, url: URL, headers: Mapping[str, str]) -> None:
        # The request is never sent: a connector wants one to know where to connect, and how.
        self._request = aiohttp.ClientRequest("POST", url, loop=asyncio.get_running_loop())
        self._connect = connector.connect
        lines = [f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode()

    async def post(self, body: bytes, key: str = "") -> DirectResponse:
        """See `Target.post`."""
        try:
            connection = await self._connect(self._request, [], _TIMEOUT)
        except TimeoutError:
            raise NotConnectedError(f"nobody answered within {CONNECT_TIMEOUT:g} s") from None
        except FOREIGN as error:
            convert(error)
        try:
            return await self._exchange(connection, body, key)
        except FOREIGN as error:
            connection.close()
            convert(error)
        except BaseException:
            connection.close()
            raise

    async def _exchange(self, connection: Connection, body: bytes, key: str) -> DirectResponse:
        protocol = connection.protocol
        transport = protocol.transport if protocol is not None else None
        if protocol is None or transport is None or transport.is_closing():
            raise NotConnectedError("the connection was closed before anything was sent")
        protocol.set_response_params(read_until_eof=True, auto_decompress=True)
        end = f"\r\nIdempotency-Key: {key}\r\n\r\n" if key else "\r\n\r\n"
        transport.write(b"".join((self._head, str(len(body)).encode(), end.encode(), body)))
        message, content = await protocol.read()
        while _CONTINUE <= message.code < 200 and message.code != _SWITCHING:
            message, content = await protocol.read()
        return DirectResponse(connection, content, message.code, message.headers)


class DirectResponse:
    """An answer (implements `Response`)."""

    __slots__ = ("_connection", "_content", "headers", "status")

    def __init__(
        self,
        connection: Connection,
        content: aiohttp.StreamReader,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._content = content
        self.status = status
        self.headers = headers

    @property
    def ended(self) -> bool:
        """See `Response.ended`."""
        return self._content.at_eof()

    async def read(self, limit: int) -> bytes:
        """See `Response.read`."""
        try:
            body = await gather(self._content, limit)
        except FOREIGN as error:
            self._connection.close()
            convert(error)
        except BaseException:
            self._connection.close()
            raise
        self._connection.release()
        return body

    async def chunk(self) -> bytes:
        """See `Response.chunk`."""
        try:
            return await self._content.readany()
        except FOREIGN as error:
            self._connection.close()
            convert(error)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """See `Response.close`."""
        if self._content.at_eof():
            self._connection.release()
        else:
            self._connection.close()
