"""The nouns of the method, frozen: the paper's words, one word a thing.

Everything here is data. Identity is an id, never a text; order is by index, never by finishing time.
All structs encode to JSON with msgspec and decode back to equal values.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from tfgrpo.errors import CutOffError


class Struct(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of every domain type: immutable, compact in JSON, strict on decoding."""


# --- tasks and what a model says -------------------------------------------------------------------------


class Task(Struct, frozen=True):
    """One question: `id` is its identity; `truth` is None where no ground truth is known."""

    id: str
    input: str
    truth: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class ToolCall(Struct, frozen=True):
    """One tool call that the model asks for; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(Struct, frozen=True):
    """One chat message in OpenAI's roles: system, user, assistant, tool."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class Usage(Struct, frozen=True):
    """The cost of calls: tokens in (of which cached) and out, and US dollars by the configured prices."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
        )

    @property
    def tokens(self) -> int:
        """Tokens in and out together, cached ones included."""
        return self.input_tokens + self.output_tokens

    def split(self, parts: int) -> tuple[Usage, ...]:
        """The same in so many parts as even as whole tokens allow, the larger first; the call counts in the first."""
        if parts == 1:
            return (self,)

        def share(count: int, part: int) -> int:
            return count // parts + (part < count % parts)

        return tuple(
            Usage(
                self.calls if part == 0 else 0,
                share(self.input_tokens, part),
                share(self.cached_tokens, part),
                share(self.output_tokens, part),
                self.usd / parts,
            )
            for part in range(parts)
        )


class Price(Struct, frozen=True):
    """US dollars per million tokens; without `cached_input`, cached tokens cost `input`."""

    input: float
    output: float
    cached_input: float | None = None


class StopReason(StrEnum):
    """Why the model stopped writing."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


class Choice(Struct, frozen=True):
    """One of the n answers to a request."""

    content: str
    stop_reason: StopReason = StopReason.STOP
    tool_calls: tuple[ToolCall, ...] = ()


class ModelRequest(Struct, frozen=True):
    """One chat completion request, provider-neutral. `n` answers to the same messages.

    `response_schema` is a JSON schema the answer must follow; `schema_name` names it on the wire.
    `seed` is derived from the logical key of the call, so that separate requests of one group differ.
    """

    messages: tuple[Message, ...]
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    response_schema: dict[str, Any] | None = None
    schema_name: str = "answer"
    tools: tuple[dict[str, Any], ...] = ()


class ModelReply(Struct, frozen=True):
    """The answer to a `ModelRequest`: exactly `request.n` choices, in order, and what they cost.

    `content`, `stop_reason` and `tool_calls` are those of the first choice.
    """

    choices: tuple[Choice, ...]
    usage: Usage
    model: str = ""

    @property
    def content(self) -> str:
        """The text of the first choice."""
        return self.choices[0].content

    @property
    def stop_reason(self) -> StopReason:
        """Why the model stopped writing the first choice."""
        return self.choices[0].stop_reason

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the first choice."""
        return self.choices[0].tool_calls

    @property
    def message(self) -> Message:
        """The first choice as the assistant message that goes on the conversation."""
        return Message("assistant", self.content, self.tool_calls)


class Role(StrEnum):
    """The payer of a call: rollouts, the distiller (summaries to consolidation), or a judge."""

    ROLLOUT = "rollout"
    DISTILLER = "distiller"
    JUDGE = "judge"


# --- effects: what is done outside the process -----------------------------------------------------------


class EffectKind(StrEnum):
    """The kinds of things that are done outside the process, once, and durably."""

    MODEL = "model"
    TOOL = "tool"
    FETCH = "fetch"
    SEARCH = "search"
    JUDGE = "judge"


class EffectStatus(StrEnum):
    """The state of one attempt at an effect; OPEN means that no outcome is known (in flight, or cut off)."""

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"


class ToolRequest(Struct, frozen=True):
    """One call of a tool, as the ledger keeps it."""

    name: str
    arguments: dict[str, Any]


class ToolResult(Struct, frozen=True):
    """The text that a tool gave back."""

    text: str


class Limits(Struct, frozen=True, kw_only=True):
    """The limits of one provider, all at once; None is no limit of ours.

    `concurrency` bounds the calls in flight; the rates are a minute. The limits that a provider's answers tell are
    followed besides. `attempts` bounds how often one call is tried before it fails.
    """

    concurrency: int = 64
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    attempts: int = 6
    request_timeout: float = 600.0


# --- rollouts and groups ---------------------------------------------------------------------------------


class ToolUse(Struct, frozen=True):
    """One tool call of an attempt: what was asked, what came back, in how many seconds."""

    name: str
    arguments: dict[str, Any]
    result: str
    seconds: float = 0.0


class Trajectory(Struct, frozen=True):
    """Messages and tool calls of one attempt, as far as it got; the last assistant message is the answer.

    Where an attempt held several conversations they stand one behind the other, each turn behind the turn that
    it goes on from.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolUse, ...] = ()

    @property
    def answer(self) -> str:
        """The text of the last assistant message, empty when there is none."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")


class Reward(Struct, frozen=True):
    """A grade in [0, 1]. `answer` is the normalised final answer the grade rests on, where there is one."""

    value: float
    answer: str | None = None
    detail: str = ""


class FaultKind(StrEnum):
    """The part that broke."""

    MODEL = "model"
    TOOL = "tool"
    SANDBOX = "sandbox"
    VERIFIER = "verifier"
    AGENT = "agent"
    DISTILLER = "distiller"


class Fault(Struct, frozen=True):
    """Something broke. A fault is data and never a reward of 0."""

    kind: FaultKind
    error: str
    message: str
    retryable: bool = False


class PriorRef(Struct, frozen=True):
    """The token prior that a rollout ran with: the library's version and digest ("" without a library).

    `prior` is the digest of the prior's text; the record "prior" of that name lists the entries in it. It is ""
    where the prompt held no prior.
    """

    version: int
    digest: str
    prior: str = ""


class TokenPrior(Struct, frozen=True):
    """The bytes that shift a frozen model's output, and which library they come from.

    `ids` are the living experiences in `text`, in id order; `tokens` the count of the whole text by the library's
    tokenizer; `digest` the SHA-256 of its UTF-8 bytes in hexadecimal; `library` the snapshot it was packed from.
    The first `stable` characters are the same for every batch of questions.
    """

    text: str
    ids: tuple[str, ...]
    tokens: int
    digest: str
    library: PriorRef
    stable: int


class PriorRecord(Struct, frozen=True):
    """The entries that stood in a prior, kept once for each digest of a prior's text."""

    library: str
    version: int
    entries: tuple[str, ...]
    tokens: int


class Ending(StrEnum):
    """The end of an attempt: exactly one of these per planned attempt."""

    COMPLETED = "completed"
    TRUNCATED = "truncated"
    FAULTED = "faulted"
    CUT_OFF = "cut off"


class Rollout(Struct, frozen=True):
    """One attempt at one task, terminal. Graded exactly when `reward` is not None; then `fault` is None.

    A faulted attempt has the trajectory as far as it got. A straggler that its group did not wait for ends as
    CUT_OFF: nobody's fault, and in no statistic. `key` is the attempt's, as text; `usage` what its effects cost;
    `diverged` counts the effects that an earlier engine had completed and that this attempt did not ask for again.
    """

    task_id: str
    index: int
    prior: PriorRef
    trajectory: Trajectory
    ending: Ending
    reward: Reward | None = None
    fault: Fault | None = None
    started: float = 0.0
    finished: float = 0.0
    key: str = ""
    usage: Usage = Usage()
    diverged: int = 0

    @property
    def cut_off(self) -> bool:
        """Tell a straggler that was cut off; the first versions recorded a fault of that name."""
        return self.ending is Ending.CUT_OFF or (
            self.fault is not None and self.fault.error == CutOffError.__name__
        )


class Signal(StrEnum):
    """The lesson in a group: whether it can teach."""

    MIXED = "mixed"
    UNIFORM = "uniform"
    UNDERGRADED = "undergraded"


class Group(Struct, frozen=True):
    """The rollouts of one task at one library version, ordered by index, and what they can teach."""

    task_id: str
    rollouts: tuple[Rollout, ...]
    signal: Signal

    @property
    def graded(self) -> tuple[Rollout, ...]:
        """The rollouts that have a reward."""
        return tuple(r for r in self.rollouts if r.reward is not None)


class SemanticAdvantage(Struct, frozen=True):
    """In words, why the better rollouts of one group won; `rollouts` are indices into its own group."""

    task_id: str
    text: str
    rollouts: tuple[int, ...]


# --- the experience library ------------------------------------------------------------------------------


class OperationKind(StrEnum):
    """The four operations on a library."""

    ADD = "add"
    MODIFY = "modify"
    DELETE = "delete"
    KEEP = "keep"


class Operation(Struct, frozen=True):
    """One proposed change of the library.

    `target` is the id of an existing experience (MODIFY, DELETE, KEEP); `text` the new wording (ADD, MODIFY);
    `base_version` the library version the proposer saw; `source` the group it comes from ("" for a
    consolidation) and `index` its place there: (source, index) is the canonical order. `sources` are all
    the groups it rests on, `parents` the experiences a merged ADD replaces.
    """

    kind: OperationKind
    target: str | None = None
    text: str = ""
    base_version: int = 0
    source: str = ""
    index: int = 0
    sources: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


class Revision(Struct, frozen=True):
    """One change in an experience's life: at which version, by which operation, to which text, from where."""

    version: int
    operation: OperationKind
    text: str
    sources: tuple[str, ...] = ()


def label_of(experience_id: str) -> str:
    """The part of an id that prompts show: "E7" of "E7-1f0c66ba". It names an experience within one library."""
    return experience_id.partition("-")[0]


class Experience(Struct, frozen=True):
    """One lesson in natural language.

    `id` is a number in the library and a tag made of the experience's origin, "E7-1f0c66ba" ("E7" from files of
    format_version 2): never reused or renumbered, and no other library's. `history` is its lineage.
    """

    id: str
    text: str
    parents: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    created: int = 0
    changed: int = 0
    tokens: int = 0
    credit: float = 0.0
    history: tuple[Revision, ...] = ()

    @property
    def label(self) -> str:
        """The part of the id that prompts show: "E7"."""
        return label_of(self.id)

    @property
    def number(self) -> int:
        """The number in the id."""
        return int(self.label[1:])


class DroppedOperation(Struct, frozen=True):
    """An operation that was not applied, and why."""

    operation: Operation
    reason: str


class ApplyReport(Struct, frozen=True):
    """The outcome of `apply`: ids added, modified, deleted, kept; every dropped operation with its reason."""

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[DroppedOperation, ...] = ()
