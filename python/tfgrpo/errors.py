"""One root error, one family a room: every message says what happened, where, and what to do.

Fields, not only text: `retryable` tells the engine whether another attempt can help, and model errors say
whether the failed attempt may have been paid for. Foreign exceptions are converted at one boundary a room.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self


class TfgrpoError(Exception):
    """Root of every error that tfgrpo raises on purpose.

    Args:
        message: one paragraph for the person who has to act: what, where, remedy.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def kind(self) -> str:
        """The class name, as reports show it beside the kind of fault."""
        return type(self).__name__

    def again(self) -> Self:
        """A fresh error that says the same: one object raised in many tasks would gather the traces of all."""
        return copy.copy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args`, which subclasses with other arguments do not take.
        return _made_again, (type(self), self.args, dict(vars(self)))


def _made_again(kind: type[TfgrpoError], args: tuple[Any, ...], fields: dict[str, Any]) -> TfgrpoError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


# --- configuration and input ---------------------------------------------------------------------------


class ConfigError(TfgrpoError):
    """The configuration is unusable: bad TOML, an unknown key, a value out of range, a missing file."""


class DataError(ConfigError):
    """A data file is unusable: missing, not UTF-8, empty, a record without `input`, a duplicate id."""


# --- model ---------------------------------------------------------------------------------------------


class ModelError(TfgrpoError):
    """A model call failed.

    Args:
        message: one paragraph: what the endpoint did and what to do about it.
        status: the HTTP status, or None when no response arrived.
        retry_after: seconds the provider asks us to wait, or None.
        maybe_paid: True when the provider may have done (and billed) the work although no usable
            answer arrived.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        maybe_paid: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.maybe_paid = maybe_paid


class ConnectError(ModelError):
    """No connection: the endpoint is down, the name does not resolve, or TLS fails. Nothing was sent."""

    retryable = True


class ConnectionLostError(ModelError):
    """The connection broke after the request was sent: the call may have been paid."""

    retryable = True


class ModelTimeoutError(ModelError):
    """No complete answer within `limits.request_timeout` seconds: the call may have been paid."""

    retryable = True


class TaskTimeoutError(ModelError):
    """A rollout had no answer within `limits.task_timeout` seconds of its first call."""


class CutOffError(ModelError):
    """A straggler: its group closed without it (`practice.oversample`). Counts in no statistic."""


class RateLimitedError(ModelError):
    """429: the provider asks for a pause. Charged to no retry budget; the whole fan-out pauses."""

    retryable = True


class ServerError(ModelError):
    """5xx: the provider failed or is overloaded."""

    retryable = True


class OverloadedError(ServerError):
    """503 or 529: the provider has no capacity just now. Nothing was done; growth pauses."""


class MalformedReplyError(ModelError):
    """A 2xx whose body is not a chat completion: cut short, not JSON, no choices. Paid, most likely."""

    retryable = True


class AuthenticationError(ModelError):
    """401 or 403: the key is missing, wrong, or may not use this model. The run stops, state kept."""


class QuotaError(ModelError):
    """The account has no money or quota left. The run stops, state kept."""


class UnknownModelError(ModelError):
    """404: the endpoint does not serve this model (or the base URL is wrong). The run stops."""


class ContextLengthError(ModelError):
    """The prompt does not fit the model's context."""


class ContentFilterError(ModelError):
    """The provider refused the prompt or withheld the answer."""


class InvalidRequestError(ModelError):
    """400 and its kin: the endpoint does not accept this request."""


class GroupRequestUnsupportedError(InvalidRequestError):
    """The endpoint does not answer `n` > 1 in one request; `Model.group_limit` is 1 from now on.

    Not retryable as it stands: the caller splits the request into single ones with seeds of their own.
    `maybe_paid` is True when the endpoint answered with fewer choices than asked instead of refusing.
    """


class ForeignModelError(ModelError):
    """A model raised something that is no error of ours: a bug in it. The call may have been paid."""


class LocalModelError(ModelError):
    """The embedded model cannot be fetched, verified, started or reached."""


#: Errors that no later call can escape: the run stops with everything kept (exit code 3).
FATAL_MODEL_ERRORS: tuple[type[ModelError], ...] = (AuthenticationError, QuotaError, UnknownModelError)


# --- the other rooms -----------------------------------------------------------------------------------


class ToolError(TfgrpoError):
    """A tool of the agent is broken, or there is none of that name."""


class AgentError(TfgrpoError):
    """An agent returned no answer, or is no agent."""


class VerifierError(TfgrpoError):
    """A verifier raised, timed out, or returned something that is no reward in [0, 1]."""


class DistillError(TfgrpoError):
    """A distiller reply stayed unusable after its repair round."""


class LibraryError(TfgrpoError):
    """An experience library is unusable: a bad file, a digest that does not match, an unknown version."""


class JournalError(TfgrpoError):
    """The journal cannot be read or written; no further call is launched."""


class JournalFullError(JournalError):
    """The disk is full: launches stopped first, everything acknowledged is on disk."""


class JournalMismatchError(JournalError):
    """A replayed request differs from the journaled one: the run would not be the same run."""


class BudgetError(TfgrpoError):
    """The token or money budget is spent: the run stops with everything kept (exit code 3)."""


class InterruptedRunError(TfgrpoError):
    """SIGINT or SIGTERM: the run stopped with everything kept (exit code 130)."""


class UsageError(TfgrpoError):
    """The public API was used in a way that cannot work: a closed engine, an unknown role, a key asked twice."""


class UnmeasuredError(TfgrpoError):
    """No attempt of an arm could be graded, or no group be learned from: resuming would change nothing."""


class RunStoppedError(TfgrpoError):
    """The run stopped before its end, with everything kept: it can be resumed.

    Args:
        reason: why: the budget, the provider (key, quota, endpoint down), the journal, or a signal.
    """

    def __init__(self, reason: TfgrpoError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class HookError(TfgrpoError):
    """A hook raised while hooks are strict, as in tests; its error is the cause. Elsewhere it is switched off."""


#: What no rollout may swallow as its own fault.
FATAL_ERRORS: tuple[type[TfgrpoError], ...] = (RunStoppedError, JournalError, HookError)
