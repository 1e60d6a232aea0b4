"""The scope of one attempt: the face through which an agent and a verifier do anything at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from tfgrpo.dispatch import Dispatcher, Priority, Sharing, model_effect, request_digest, use_tool
from tfgrpo.dispatch.sharing import Member
from tfgrpo.errors import ModelError, ToolError, UsageError
from tfgrpo.keys import Key
from tfgrpo.protocols import AttemptLimits, Tool
from tfgrpo.rollout.deadline import Deadline, EffectWatch
from tfgrpo.rollout.trajectory import Trace
from tfgrpo.types import (
    EffectKind,
    Message,
    ModelReply,
    ModelRequest,
    PriorRef,
    Role,
    StopReason,
    Task,
    TokenPrior,
    ToolRequest,
    ToolUse,
    Trajectory,
    Usage,
)


class AttemptScope:
    """One attempt at one task (implements `Scope`).

    Args:
        key: of the attempt.
        task: the question.
        prior: the token prior of `messages`.
        messages: the assembled prompt.
        dispatcher: makes the effects.
        temperature: of requests that name none.
        deadline: bounds the attempt.
        limits: as the agent is told.
        tools: by name.
        sharing: the first requests of the group; None asks alone.
        priority: of the calls that are not shared.
    """

    def __init__(
        self,
        key: Key,
        task: Task,
        prior: TokenPrior,
        messages: tuple[Message, ...],
        dispatcher: Dispatcher,
        *,
        temperature: float | None = None,
        deadline: Deadline | None = None,
        limits: AttemptLimits | None = None,
        tools: Mapping[str, Tool] | None = None,
        sharing: Sharing | None = None,
        priority: int = Priority.FINISH,
    ) -> None:
        self.key = key
        self.usage = Usage()
        self._task = task
        self._prior = prior
        self._messages = messages
        self._dispatcher = dispatcher
        self._temperature = temperature
        self.deadline = Deadline() if deadline is None else deadline
        self._limits = limits or AttemptLimits()
        self._tools = tools or {}
        self._sharing = sharing
        self._member: Member | None = None
        self._priority = priority
        self._trace = Trace(messages)
        self._answer: str | None = None
        self._last: ModelReply | None = None
        self._asked: Counter[str] = Counter()
        self._made: set[Key] = set()
        self._working: dict[EffectWatch, asyncio.Task[Any] | None] = {}
        self._idle: anyio.Event | None = None
        self._over = False
        if sharing is not None:
            self._member = sharing.member()

    # --- told --------------------------------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The question."""
        return self._task

    @property
    def index(self) -> int:
        """The number of this attempt at the task, from 0."""
        return self.key.index or 0

    @property
    def prior(self) -> TokenPrior:
        """The learned token prior; its text is empty where there is none."""
        return self._prior

    @property
    def messages(self) -> tuple[Message, ...]:
        """The assembled prompt: system text and prior, then the question."""
        return self._messages

    @property
    def limits(self) -> AttemptLimits:
        """The bounds of this attempt."""
        return self._limits

    @property
    def trajectory(self) -> Trajectory:
        """The attempt so far."""
        return self._trace.trajectory

    @property
    def answer(self) -> str:
        """The text that the agent returned; until then the last assistant message."""
        return self.trajectory.answer if self._answer is None else self._answer

    # --- done --------------------------------------------------------------------------------------------

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Ask the rollout model; see `Scope.ask`."""
        request = complete_request(request, self._temperature)
        turn = self._trace.ask(request.messages)
        reply = await self._model(Role.ROLLOUT, request)
        self._trace.answered(turn, reply.message)
        self._last = reply
        return reply

    async def judge(self, request: ModelRequest) -> ModelReply:
        """Ask the judge model; see `Scope.judge`."""
        return await self._model(Role.JUDGE, complete_request(request, self._temperature))

    async def call(self, tool: Tool | str, arguments: Mapping[str, Any]) -> str:
        """Use a tool; see `Scope.call`."""
        self._must_be_open()
        used = find_tool(self._tools, tool)
        request = ToolRequest(used.name, dict(arguments))
        key = self._key(EffectKind.TOOL.value, request_digest(request).hex())
        self._arrive()
        watch = self._begin()
        started = anyio.current_time()
        try:
            text = await use_tool(self._dispatcher, key, used, arguments, watcher=watch)
        finally:
            self._end(watch)
        self._trace.used(
            ToolUse(used.name, request.arguments, text, round(anyio.current_time() - started, 3))
        )
        return text

    def note(self, text: str) -> None:
        """Add a remark to the trajectory; see `Scope.note`."""
        self._must_be_open()
        self._trace.note(text)

    # --- for the runner ----------------------------------------------------------------------------------

    def answered(self, answer: str) -> None:
        """Take the agent's answer: from now on it is what is graded."""
        self._answer = answer
        self._trace.end(answer)

    @property
    def truncated(self) -> bool:
        """Tell whether the answer is a reply that the length limit cut off."""
        last = self._last
        return last is not None and last.stop_reason is StopReason.LENGTH and last.content == self.answer

    @property
    def prior_ref(self) -> PriorRef:
        """The prior as the rollout's record names it."""
        prior = self._prior
        return msgspec.structs.replace(prior.library, prior=prior.digest if prior.ids else "")

    async def close(self) -> None:
        """End what the agent has left behind: calls of tasks that it did not wait for are given up.

        Returns when no effect of the attempt is under way any more, in an exchange that its siblings share neither.

        Cancellation: propagates; what is left behind was told to end.
        """
        self._over = True
        self._arrive()
        if self._working:
            self._idle = anyio.Event()
            for task in self._working.values():
                if task is not None and task is not asyncio.current_task():
                    task.cancel()
            await self._idle.wait()
        if self._sharing is not None and self._member is not None:
            await self._sharing.settled(self._member)

    @property
    def diverged(self) -> int:
        """The number of effects that an earlier engine had completed and that were not asked for again."""
        return sum(key not in self._made for key in self._dispatcher.store.done(self.key))

    # --- parts -------------------------------------------------------------------------------------------

    async def _model(self, role: Role, request: ModelRequest) -> ModelReply:
        self._must_be_open()
        digest = request_digest(request)
        kind = EffectKind.JUDGE if role is Role.JUDGE else EffectKind.MODEL
        effect = model_effect(self._key(kind.value, digest.hex()), role, request, digest)
        reply = await self._dispatcher.replay(effect)
        if reply is not None:
            self._arrive()
        else:
            watch = self._begin()
            try:
                if role is Role.ROLLOUT and self._member is not None and not self._member.arrived:
                    assert self._sharing is not None  # noqa: S101 - a member has one
                    reply = await self._sharing.ask(self._member, effect, request, watch)
                else:
                    sent = await self._dispatcher.send(
                        [effect], request, priority=self._priority, watcher=watch
                    )
                    reply = sent[0]
            finally:
                self._end(watch)
        self.usage = self.usage + reply.usage
        return reply

    def _key(self, kind: str, digest: str) -> Key:
        """The key of an effect: what is asked, and how often the same was asked before in this attempt."""
        name = f"{kind}/{digest}"
        key = self.key.do(kind, digest[:16], str(self._asked[name]))
        self._asked[name] += 1
        self._made.add(key)
        return key

    def _begin(self) -> EffectWatch:
        watch = self.deadline.watch()
        self._working[watch] = asyncio.current_task()
        return watch

    def _end(self, watch: EffectWatch) -> None:
        watch.ended()
        del self._working[watch]
        if self._idle is not None and not self._working:
            self._idle.set()

    def _arrive(self) -> None:
        if self._sharing is not None and self._member is not None:
            self._sharing.arrive(self._member)

    def _must_be_open(self) -> None:
        if self._over:
            error: ModelError | UsageError | None = self.deadline.error
            raise (
                error.again()
                if error is not None
                else UsageError(
                    f"The attempt {self.key} is over: an agent must await all that it starts before it returns."
                )
            )


def complete_request(request: ModelRequest, temperature: float | None) -> ModelRequest:
    """Check a request of an agent, and complete it with the attempt's temperature where it names none.

    Raises:
        UsageError: it is no request, or has no messages that can be read.
    """
    if not isinstance(request, ModelRequest):
        raise UsageError(
            f"scope.ask was given a {type(request).__name__}; give a tfgrpo.ModelRequest, for example "
            "ModelRequest(messages=scope.messages)."
        )
    messages: Any = request.messages  # a stranger's: a struct does not check what it is made of
    if not isinstance(messages, tuple) or not all(isinstance(message, Message) for message in messages):
        try:
            messages = msgspec.convert(messages, tuple[Message, ...], from_attributes=True)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"The messages of a request cannot be read ({error}); give a tuple of tfgrpo.Message, or dicts with "
                "role and content."
            ) from None
    if not messages:
        raise UsageError("A request has no messages; give at least one, for example scope.messages.")
    temperature = temperature if request.temperature is None else request.temperature
    if messages is request.messages and temperature == request.temperature:
        return request
    return msgspec.structs.replace(request, messages=messages, temperature=temperature)


def find_tool(tools: Mapping[str, Tool], tool: Tool | str) -> Tool:
    """The tool of that name, or the one that is given itself.

    Raises:
        ToolError: the run has no tool of that name.
    """
    if not isinstance(tool, str):
        return tool
    try:
        return tools[tool]
    except KeyError:
        known = ", ".join(sorted(tools)) or "none"
        raise ToolError(f"There is no tool {tool!r}; this run has: {known}.") from None
