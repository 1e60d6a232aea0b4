"""The Model protocol: one request, one attempt, one reply or one typed error."""

from __future__ import annotations

from typing import Protocol

from tfgrpo.errors import InvalidRequestError
from tfgrpo.types import ModelReply, ModelRequest


class GroupRequestUnsupportedError(InvalidRequestError):
    """The endpoint does not answer `n` > 1 in one request; `Model.group_limit` is 1 from now on.

    Not retryable as it stands: the caller splits the request into single ones with seeds of their own.
    `maybe_paid` is True when the endpoint answered with fewer choices than asked instead of refusing.
    """


class Model(Protocol):
    """Anything that completes a chat: a remote endpoint, the embedded model, a script in a test."""

    @property
    def group_limit(self) -> int | None:
        """The largest `n` worth sending: None is unlimited, 1 means single requests only.

        It may fall while calls are in flight, when the endpoint refuses a group request.
        """
        ...

    async def complete(self, request: ModelRequest, *, key: str = "") -> ModelReply:
        """Make one attempt at one request; nothing is retried here.

        Args:
            request: messages and sampling settings; `request.n` answers are wanted.
            key: the logical key of the call, sent as `Idempotency-Key`: the same for every attempt.

        Returns:
            Exactly `request.n` choices, in order, and what they cost.

        Raises:
            ModelError: one subclass per failure class (`tfgrpo.errors`); `retryable`, `retry_after` and
                `maybe_paid` say what the caller can do and has to account for.
            GroupRequestUnsupportedError: `request.n` > 1 and the endpoint has no group requests.

        Cancellation:
            The exchange is aborted at once and its connection closed; other calls are untouched. The
            provider may have done the work and may bill it: a cancelled call counts as perhaps paid.
        """
        ...

    async def aclose(self) -> None:
        """Release what the model itself opened. Idempotent; calls in flight are not waited for."""
        ...
