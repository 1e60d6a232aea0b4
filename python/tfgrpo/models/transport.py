"""The way of requests and answers: a small protocol, so that the HTTP client can be chosen.

A transport sends a request once, follows no redirect, keeps no cookie and gives every failure as one of the
errors below. It decides nothing else: deadlines, retries and what an answer means belong to its caller.
"""

from __future__ import annotations

import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from yarl import URL

#: Seconds for DNS, TCP and TLS together: the connect phase has a deadline of its own since it is surely unpaid.
CONNECT_TIMEOUT = 30.0

#: Seconds an idle connection is kept: less than the 5 s after which common servers close theirs. A request on a
#: connection that the server just closed would be lost, and nobody may resend it silently.
KEEP_ALIVE = 4.0


class TransportError(Exception):
    """An exchange failed; the text is what the HTTP client said."""


class NotConnectedError(TransportError):
    """No connection came about: nothing was sent."""


class LostError(TransportError):
    """The connection broke after it was there: the request may have arrived."""


class NotHttpError(TransportError):
    """Something answered, but not in HTTP."""


class TooLargeError(TransportError):
    """The body is larger than its reader wanted to hold."""


class Response(Protocol):
    """The head of an answer and the way to its body. Whoever gets one reads it to its end or closes it."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names in any case."""
        ...

    @property
    def ended(self) -> bool:
        """Tell whether the whole body was read, so that the connection is free again."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            TooLargeError: it is larger than `limit` bytes; the connection is closed.
            LostError: the connection broke.
            NotHttpError: what arrives is not HTTP.

        Cancelling closes the connection.
        """
        ...

    async def chunk(self) -> bytes:
        """The next piece of the body as it arrived; b"" at its end. Errors and cancelling as for `read`."""
        ...

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else close it. Idempotent."""
        ...


class Target(Protocol):
    """One URL with its headers, prepared once."""

    async def post(self, body: bytes, key: str = "") -> Response:
        """Send a request once and wait for the head of its answer.

        Args:
            body: the JSON body.
            key: the value of `Idempotency-Key`, fit for a header; "" sends none.

        Raises:
            NotConnectedError: nothing was sent.
            LostError: the connection broke; the request may have arrived.
            NotHttpError: the answer is not HTTP.

        Cancelling closes the connection.
        """
        ...


class Session(Protocol):
    """A pool of connections, shared by all models of a run; an async context manager."""

    def target(self, url: URL, headers: Mapping[str, str]) -> Target:
        """Prepare requests to a URL; these headers go with each of them."""
        ...

    async def __aenter__(self) -> Self:
        """Enter."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        ...


def environment_proxy(url: URL) -> tuple[str | None, dict[str, str] | None]:
    """The proxy that the environment names for a URL, and its credentials; none for this machine itself.

    Asked once a target: HTTP clients that look it up themselves do so at every request.
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
