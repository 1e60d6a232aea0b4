"""A model that answers by script, in process: replies and faults follow from the request and the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NoReturn

import anyio

from tfgrpo.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    ContentFilterError,
    ContextLengthError,
    GroupRequestUnsupportedError,
    InvalidRequestError,
    MalformedReplyError,
    ModelError,
    ModelTimeoutError,
    OverloadedError,
    QuotaError,
    RateLimitedError,
    ServerError,
    UnknownModelError,
)
from tfgrpo.protocols import Observer
from tfgrpo.testing.faults import Call, FaultPlan, FaultType, PlannedFault
from tfgrpo.testing.scripts import Script, answers, count_tokens, fingerprint, prompt_tokens
from tfgrpo.types import Choice, ModelReply, ModelRequest, Usage

_ERRORS: dict[FaultType, tuple[type[ModelError], int | None]] = {
    FaultType.CONNECT: (ConnectError, None),
    FaultType.RESET_BEFORE: (ConnectionLostError, None),
    FaultType.RESET_AFTER: (ConnectionLostError, None),
    FaultType.CUT_BODY: (ConnectionLostError, None),
    FaultType.RESET_STREAM: (ConnectionLostError, None),
    FaultType.TIMEOUT: (ModelTimeoutError, None),
    FaultType.SLOW_LORIS: (ModelTimeoutError, None),
    FaultType.RATE_LIMITED: (RateLimitedError, 429),
    FaultType.SERVER_ERROR: (ServerError, 500),
    FaultType.OVERLOADED: (OverloadedError, 503),
    FaultType.MALFORMED: (MalformedReplyError, None),
    FaultType.MALFORMED_STREAM: (MalformedReplyError, None),
    FaultType.HUGE_BODY: (MalformedReplyError, None),
    FaultType.WRONG_COUNT: (MalformedReplyError, None),
    FaultType.AUTHENTICATION: (AuthenticationError, 401),
    FaultType.QUOTA: (QuotaError, 429),
    FaultType.UNKNOWN_MODEL: (UnknownModelError, 404),
    FaultType.CONTEXT_LENGTH: (ContextLengthError, 400),
    FaultType.CONTENT_FILTER: (ContentFilterError, 400),
    FaultType.INVALID_REQUEST: (InvalidRequestError, 400),
}


class ScriptedModel:
    """A deterministic model for tests (implements `Model`).

    Args:
        script: request to answers; see `tfgrpo.testing.scripts.Script` and the sample `practice_script`.
        latency: seconds (of the event loop's clock) before a call ends, or a function of the request.
        faults: which calls break; attempts are counted per key (per request where no key is given).
        group_limit: what `Model.group_limit` says; a larger `n` is refused like an endpoint would.
        name: how replies name the model.

    `calls` counts attempts by key, `served` the paid ones by key, `requests` lists all requests in order
    of arrival. Usage counts words.
    """

    def __init__(
        self,
        script: Script,
        latency: float | Callable[[ModelRequest], float] = 0.0,
        faults: FaultPlan | None = None,
        *,
        group_limit: int | None = None,
        name: str = "scripted",
    ) -> None:
        self.name = name
        self.calls: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.requests: list[ModelRequest] = []
        self.closed = False
        self._script = script
        self._latency = latency
        self._faults = faults or FaultPlan()
        self._group_limit = group_limit

    @property
    def group_limit(self) -> int | None:
        """The largest `n` this model answers."""
        return self._group_limit

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        """One attempt, by script. Cancelled while it waits for its latency, it raises nothing else."""
        key = key or fingerprint(request)
        self.calls[key] += 1
        self.requests.append(request)
        call = Call(key, self.calls[key], len(self.requests), request)
        if self._group_limit is not None and request.n > self._group_limit:
            raise GroupRequestUnsupportedError(
                f"{self.name}: n = {request.n} is more than {self._group_limit}."
            )
        fault = self._faults.decide(call)
        if fault is None or fault.type.paid:
            self.served[key] += 1
        if observer is not None:
            observer.sent()
        await anyio.sleep(self._latency(request) if callable(self._latency) else self._latency)
        if fault is not None and not fault.type.answered:
            if observer is not None and (status := _ERRORS[fault.type][1]) is not None:
                observer.answered(status, ())
            _raise(fault, call)
        if fault is not None and fault.type is FaultType.SLOW_BODY:
            await anyio.sleep(fault.seconds)
        choices = answers(self._script, request)
        if observer is not None:
            observer.answered(200, ())
            observer.first_token()
        if fault is not None and fault.type in {FaultType.WRONG_USAGE, FaultType.NO_USAGE}:
            return ModelReply(choices, Usage(calls=1), self.name)
        return ModelReply(choices, usage_of(request, choices), self.name)

    async def aclose(self) -> None:
        """Note that the model was closed."""
        self.closed = True


def usage_of(request: ModelRequest, choices: tuple[Choice, ...]) -> Usage:
    """Usage in words: the prompt once, every choice."""
    output = sum(count_tokens(choice.content) for choice in choices)
    return Usage(calls=1, input_tokens=prompt_tokens(request.messages), output_tokens=output)


def _raise(fault: PlannedFault, call: Call) -> NoReturn:
    error, status = _ERRORS[fault.type]
    raise error(
        f"planned fault {fault.type} at attempt {call.attempt} of {call.key}.",
        status=status,
        retry_after=fault.retry_after,
        maybe_paid=issubclass(error, ConnectionLostError | ModelTimeoutError | MalformedReplyError),
    )
