"""Effects of model calls: the digest they are known by, and a watcher that follows one through its attempts."""

from __future__ import annotations

import functools

import msgspec

from tfgrpo.errors import JournalError, ModelError, TfgrpoError, UsageError
from tfgrpo.journal import digest_of
from tfgrpo.keys import Key
from tfgrpo.protocols import Effect
from tfgrpo.types import EffectKind, Fault, FaultKind, ModelRequest, Role


class Watcher:
    """Follows one call through its attempts. Override the methods that are of interest."""

    def launched(self) -> None:
        """An attempt is really sent."""

    def first_token(self) -> None:
        """The first piece of the answer is there."""

    def queued(self) -> None:
        """The call waits for a slot, for money, or for the provider to be well again."""

    def abandoned(self) -> ModelError | None:
        """Why a cancelled call is given up while the run goes on; None: it is not."""
        return None


NOBODY = Watcher()


def request_digest(request: msgspec.Struct) -> bytes:
    """The 32 bytes that a request is known by.

    Raises:
        UsageError: it has no JSON encoding.
    """
    try:
        return _digest(request)
    except TypeError:  # a request with a schema cannot be looked up
        return _digest.__wrapped__(request)


# The requests of a group are equal, and come one after the other.
@functools.lru_cache(maxsize=256)
def _digest(request: msgspec.Struct) -> bytes:
    try:
        return digest_of(request)
    except JournalError as error:
        raise UsageError(f"A request cannot be kept, so it is not sent. {error.message}") from None


def model_effect(key: Key, role: Role, request: ModelRequest, digest: bytes | None = None) -> Effect:
    """The effect of one model call.

    Args:
        key: names it.
        role: whose call it is.
        request: what is asked.
        digest: of the request, where it is known already.

    Raises:
        UsageError: the request has no JSON encoding.
    """
    kind = EffectKind.JUDGE if role is Role.JUDGE else EffectKind.MODEL
    return Effect(key, kind, role, request_digest(request) if digest is None else digest, request)


def fault_of(error: TfgrpoError, kind: FaultKind) -> Fault:
    """An error as data."""
    return Fault(kind, error.kind, error.message, error.retryable)
