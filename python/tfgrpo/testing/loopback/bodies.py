"""The ways of a body to its client: whole, in pieces, slowly, too large, or not to its end."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping

import anyio
from aiohttp import web

_PIECES = 8
_LARGE = 10 * 2**20
_BLOCK = 2**16

#: A body "without end" ends here all the same, so that a client that reads on is not the end of the machine.
_END = 2**30


class Body:
    """One answer, as JSON or as a stream of events.

    Args:
        pieces: its bytes, as they would be written one after the other.
        stream: whether these are events.
        headers: what to send along.
    """

    def __init__(self, pieces: Iterable[bytes], *, stream: bool, headers: Mapping[str, str]) -> None:
        self._pieces = list(pieces)
        self._stream = stream
        self._headers = dict(headers)
        self._headers["Content-Type"] = "text/event-stream" if stream else "application/json"

    async def send(self, request: web.BaseRequest) -> web.StreamResponse:
        """Whole: JSON at once, events one by one."""
        if not self._stream:
            return web.Response(body=b"".join(self._pieces), headers=self._headers)
        return await self._write(request, _each(self._pieces))

    async def send_slowly(self, request: web.BaseRequest, seconds: float) -> web.StreamResponse:
        """In eight pieces over so many seconds."""
        whole = b"".join(self._pieces)
        size = -(-len(whole) // _PIECES)
        return await self._write(request, _slow(whole, size, seconds / _PIECES), len(whole))

    async def send_bytewise(self, request: web.BaseRequest, pause: float) -> web.StreamResponse:
        """Byte by byte, so many seconds apart."""
        whole = b"".join(self._pieces)
        return await self._write(request, _slow(whole, 1, pause), len(whole))

    async def send_padded(self, request: web.BaseRequest, *, endless: bool = False) -> web.StreamResponse:
        """After ten megabytes of what a reader has to pass over; or after more of it than anybody reads."""
        block = b": " + b"." * (_BLOCK - 3) + b"\n" if self._stream else b" " * _BLOCK
        times = (_END if endless else _LARGE) // _BLOCK
        padding = (block for _ in range(times))
        return await self._write(request, _each(padding, self._pieces))

    async def send_half(
        self, request: web.BaseRequest, *, reset: bool = False, closed: bool = True
    ) -> web.StreamResponse:
        """Half of it; then the end of the connection, by a reset or not, or a proper end of the body."""
        whole = b"".join(self._pieces)
        half = whole[: len(whole) // 2]
        if not closed:
            return await self._write(request, _each([half]))
        response = await self._begin(request, len(whole))
        await response.write(half)
        if reset:
            await anyio.sleep(0.01)  # let it arrive: a reset would overtake it
            abort(request)
        elif request.transport is not None:
            request.transport.close()
        return response

    async def _begin(self, request: web.BaseRequest, length: int | None) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers)
        if length is not None and not self._stream:
            response.content_length = length
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        return response

    async def _write(
        self, request: web.BaseRequest, pieces: AsyncIterator[bytes], length: int | None = None
    ) -> web.StreamResponse:
        response = await self._begin(request, length)
        try:
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        except ConnectionError:
            pass  # the client has gone, as it may
        return response


def abort(request: web.BaseRequest) -> None:
    """Reset the connection of a request."""
    if (transport := request.transport) is not None:
        endpoint = transport.get_extra_info("socket")
        if endpoint is not None:
            # Lingering for no time makes the close a reset instead of an orderly end.
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _each(*parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for pieces in parts:
        for piece in pieces:
            yield piece


async def _slow(whole: bytes, size: int, pause: float) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), size):
        await anyio.sleep(pause)
        yield whole[start : start + size]
