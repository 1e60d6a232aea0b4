"""From what aiohttp raises to the errors of a transport; and reading a body that may be too large."""

from __future__ import annotations

from typing import NoReturn

import aiohttp
from aiohttp.http import HttpProcessingError

from tfgrpo.models.transport import LostError, NotConnectedError, NotHttpError, TooLargeError

#: Everything that has to be converted.
FOREIGN = (aiohttp.ClientError, ConnectionError, HttpProcessingError)

_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)


def convert(error: Exception) -> NoReturn:
    """Raise the `TransportError` that one of `FOREIGN` means."""
    text = str(error) or type(error).__name__
    if isinstance(error, _UNSENT):
        raise NotConnectedError(text) from None
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        raise NotHttpError(error.message or text) from None
    raise LostError(text) from None


async def gather(content: aiohttp.StreamReader, limit: int) -> bytes:
    """The whole of a body.

    Raises:
        TooLargeError: it is larger than `limit` bytes.
    """
    body = await content.readany()
    size, pieces = len(body), [body]
    while size <= limit and not content.at_eof():
        pieces.append(await content.readany())
        size += len(pieces[-1])
    if size > limit:
        raise TooLargeError
    return body if len(pieces) == 1 else b"".join(pieces)
