"""The Model protocol: one request, one attempt, one reply or one typed error; and who watches an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from tfgrpo.errors import InvalidRequestError
from tfgrpo.types import ModelReply, ModelRequest


class GroupRequestUnsupportedError(InvalidRequestError):
    """The endpoint does not answer `n` > 1 in one request; `Model.group_limit` is 1 from now on.

    Not retryable as it stands: the caller splits the request into single ones with seeds of their own.
    `maybe_paid` is True when the endpoint answered with fewer choices than asked instead of refusing.
    """


class LimitReading(msgspec.Struct, frozen=True):
    """What one response says of one of the provider's limits; None where it does not say.

    `limit` and `remaining` count requests or tokens; `reset` is in seconds from the response until the limit
    is whole again, whatever form the header has. `window` is in seconds too: what `limit` is granted for, where
    a header says so.
    """

    kind: Literal["requests", "tokens", "input_tokens", "output_tokens"]
    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    window: float | None = None


class Observer(Protocol):
    """Watches one attempt. All methods are called from the event loop, must be quick and must not raise."""

    def sent(self) -> None:
        """The request is about to leave; called again where `complete` sends a second time."""
        ...

    def answered(self, status: int, readings: Sequence[LimitReading]) -> None:
        """The head of a response is there: its HTTP status and what its headers say of limits."""
        ...

    def first_token(self) -> None:
        """The first piece of the answer is there, so the prompt is in the provider's cache."""
        ...


class Model(Protocol):
    """Anything that completes a chat: a remote endpoint, the embedded model, a script in a test."""

    @property
    def group_limit(self) -> int | None:
        """The largest `n` worth sending: None is unlimited, 1 means single requests only.

        It may fall while calls are in flight, when the endpoint refuses a group request.
        """
        ...

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        """Make one attempt at one request; nothing is retried here.

        Args:
            request: messages and sampling settings; `request.n` answers are wanted.
            key: the logical key of the call, sent as `Idempotency-Key`: the same for every attempt.
            observer: told what happens meanwhile; None tells nobody.
            stream: let the answer come in pieces, so that `observer.first_token` is called as early as
                possible. A model without streams ignores it and calls it with the whole answer.

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
