"""The protocols that a user may write, on one page: Agent, Scope, Tool, Verifier, Model, Store.

Any object with the methods is one; nothing needs to be subclassed. A hook is the seventh: see `tfgrpo.events`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from tfgrpo.keys import Key
from tfgrpo.types import (
    EffectKind,
    EffectStatus,
    Fault,
    Message,
    ModelReply,
    ModelRequest,
    Reward,
    Role,
    Struct,
    Task,
    TokenPrior,
    Trajectory,
    Usage,
)

S = TypeVar("S", bound=msgspec.Struct)


# --- attempts --------------------------------------------------------------------------------------------


class AttemptLimits(Struct, frozen=True):
    """The bounds of one attempt. `seconds` count from the first request that is sent, waiting for slots left out."""

    seconds: float = 1800.0


class Tool(Protocol):
    """Something an agent may use. Every call is an effect: durable, and never run twice once it has ended."""

    @property
    def name(self) -> str:
        """The name by which requests and trajectories know it."""
        ...

    async def run(self, arguments: Mapping[str, Any]) -> str:
        """Use it once.

        Args:
            arguments: JSON values.

        Returns:
            The text for the model. A failed use is text, too.

        Raises:
            ToolError: the tool itself is broken; the attempt ends with a fault.

        Cancellation: propagates; the call counts as perhaps done.
        """
        ...


class Scope(Protocol):
    """The one face of an attempt to agents and verifiers.

    Whatever is done through it is admitted, budgeted, durable and replayed on resume: an effect is known by what
    is asked and by how often the same was asked before in this attempt, so an agent may ask in parallel. The
    trajectory grows here and survives a fault.
    """

    @property
    def task(self) -> Task:
        """The question."""
        ...

    @property
    def index(self) -> int:
        """The number of this attempt at the task, from 0."""
        ...

    @property
    def prior(self) -> TokenPrior:
        """The learned token prior; its text is empty where there is none."""
        ...

    @property
    def messages(self) -> tuple[Message, ...]:
        """The assembled prompt: system text and prior, then the question."""
        ...

    @property
    def limits(self) -> AttemptLimits:
        """The bounds of this attempt."""
        ...

    @property
    def trajectory(self) -> Trajectory:
        """The attempt so far."""
        ...

    @property
    def answer(self) -> str:
        """The answer that is graded: the text that the agent returned; until then the last assistant message."""
        ...

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Ask the rollout model.

        The attempt's temperature is used where the request names none, and the seed follows from the attempt's key.

        Raises:
            ModelError: the call failed for good; uncaught, it becomes the attempt's fault.

        Cancellation: propagates; a call in flight counts as perhaps paid.
        """
        ...

    async def judge(self, request: ModelRequest) -> ModelReply:
        """Ask the judge model: as `ask`, and not part of the trajectory."""
        ...

    async def call(self, tool: Tool | str, arguments: Mapping[str, Any]) -> str:
        """Use a tool, by itself or by the name under which the run knows it.

        Raises:
            ToolError: there is no such tool, or it is broken.
        """
        ...

    def note(self, text: str) -> None:
        """Add a remark to the trajectory: a step that the model did not see, such as an agent's own decision."""
        ...


class Agent(Protocol):
    """Attempts one task once."""

    async def attempt(self, scope: Scope) -> str:
        """Attempt the task of a scope.

        Returns:
            The final answer. (A `ModelReply`, `Choice` or `Message` stands for its content.)

        Raises:
            Exception: becomes the rollout's fault, whatever it is; the trajectory is kept as far as it got.

        Cancellation: propagates; nothing is recorded for the attempt.
        """
        ...


class Verifier(Protocol):
    """Grades attempts. A method `async aclose()` is called, where there is one, when the run is over."""

    async def verify(self, scope: Scope) -> Reward | float:
        """Grade `scope.answer`.

        A wrong or unreadable answer is a reward of 0; a verifier that cannot tell raises instead.

        Returns:
            A `Reward`, or a number (or bool) in [0, 1].

        Raises:
            Exception: the grading itself failed; the attempt is then a fault and never a reward.
        """
        ...


# --- models ----------------------------------------------------------------------------------------------


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
    """Watches one attempt at a call. All methods are called from the event loop, are quick and do not raise."""

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


# --- the store -------------------------------------------------------------------------------------------


class Effect(msgspec.Struct, frozen=True):
    """One thing to be done outside the process: who does it, what is asked, and the digest that stands for it.

    `digest` is 32 bytes; the same key with another digest is another effect, and is refused. `request` is stored
    whole, so that a report can show it.
    """

    key: Key
    kind: EffectKind
    role: Role
    digest: bytes
    request: msgspec.Struct


class Ticket(msgspec.Struct, frozen=True):
    """One attempt at an effect, durable as an intent. `attempt` counts from 0; `row` is the store's own."""

    key: Key
    attempt: int
    row: int


class Known(msgspec.Struct, frozen=True):
    """The newest attempt at an effect: its result when completed, its fault when failed.

    An OPEN one was in flight when the last engine died: the next attempt is paid on top of it.
    """

    attempt: int
    status: EffectStatus
    digest: bytes
    result: Any = None
    usage: Usage = Usage()
    fault: Fault | None = None


class LeftOpen(msgspec.Struct, frozen=True):
    """An attempt that an earlier engine had in flight when it ended: it may have been paid."""

    key: Key
    kind: EffectKind
    role: Role
    request: Any


class Store(Protocol):
    """Where effects and records become durable.

    The promise: a completed effect is never lost and never paid or done twice; only effects in flight at a crash
    can be, and they are counted. To keep it, await `intend` before anything is sent and `complete` before its
    result is used.

    Used from one event loop. Every method that writes returns when it is durable, and cancelling it does not undo
    the write. Nothing here blocks the loop. Memory does not grow with what is finished: the effects of an owner are
    let go when its terminal record is written, and effects without an owner's record as they end.
    """

    @property
    def header(self) -> Mapping[str, Any]:
        """The JSON values with which the store was made."""
        ...

    # --- effects

    async def find(self, key: Key, result: type[msgspec.Struct]) -> Known | None:
        """The newest attempt at an effect, its result decoded as `result`; None if it was never intended.

        Does not suspend for a key that is not known.

        Raises:
            JournalError: the store cannot be read.
        """
        ...

    async def intend(self, effects: Sequence[Effect]) -> list[Ticket]:
        """Make the intents of effects that are sent together durable, all or none; send only after this returns.

        Waits while nothing can be written (see `ready`). Cancelled before it starts or in that wait, it writes
        nothing. Cancelled later, the intents stay open, and count as perhaps paid unless `fail` says otherwise.

        Raises:
            JournalMismatchError: a key was intended before with another digest.
            JournalError: an effect is completed already, or nothing can be written any more.
        """
        ...

    async def complete(self, ticket: Ticket, result: msgspec.Struct, usage: Usage) -> None:
        """Make the result of an attempt durable; use it only after this returns.

        Raises:
            JournalError: the attempt is not open, the usage is no usage, or nothing can be written any more.
        """
        ...

    async def fail(self, ticket: Ticket, fault: Fault, *, maybe_paid: bool, usage: Usage = ...) -> None:
        """Make the failure of an attempt durable.

        Args:
            ticket: the attempt.
            fault: what broke.
            maybe_paid: the other side may have done the work and may bill it.
            usage: what it is known to have cost.
        """
        ...

    def done(self, owner: Key) -> Sequence[Key]:
        """The completed effects of an owner that an earlier engine left without its terminal record."""
        ...

    def left_open(self) -> AsyncIterator[LeftOpen]:
        """The attempts that earlier engines had in flight when they ended."""
        ...

    # --- records

    async def record(self, kind: str, key: Key, value: msgspec.Struct, *, ends: Key | None = None) -> None:
        """Make a terminal record durable; the same value under the same key again is a no-op.

        Args:
            kind: "rollout", "group", "step", …
            key: unique in its kind.
            value: read it back with the same type.
            ends: the owner whose effects nobody will ask for again; by default `key`.

        Raises:
            JournalMismatchError: the key holds another value.
            JournalError: the value has no JSON encoding, or nothing can be written any more.
        """
        ...

    async def get(self, kind: str, key: Key, type: type[S]) -> S | None:  # noqa: A002
        """One durable record, or None. Does not suspend for a key that is not known."""
        ...

    def records(self, kind: str, type: type[S], under: str = "") -> AsyncIterator[tuple[Key, S]]:  # noqa: A002
        """The durable records of one kind in the order of their keys, read in pages: memory stays bounded.

        Args:
            kind: as given to `record`.
            type: of the values.
            under: the beginning of the keys' text.
        """
        ...

    # --- state

    def usage(self) -> Mapping[Role, Usage]:
        """The cost of every finished attempt there is, by role, failed ones included."""
        ...

    def faults(self) -> Mapping[str, int]:
        """How many attempts at effects failed, by the name of the error."""
        ...

    def open_intents(self) -> int:
        """How many attempts are under way, or were in flight when an engine died: these may have been paid."""
        ...

    def seconds_a_call(self) -> Mapping[Role, float]:
        """How long the completed model calls of earlier engines took in the mean, by role."""
        ...

    @property
    def stalled(self) -> str | None:
        """Why no intent is accepted just now, in one paragraph, or None."""
        ...

    async def ready(self) -> None:
        """Return when intents are accepted; at once when they are.

        Raises:
            JournalError: nothing can be written any more.
        """
        ...

    async def aclose(self) -> None:
        """Write what is queued and let go of the store. A second call does nothing."""
        ...
