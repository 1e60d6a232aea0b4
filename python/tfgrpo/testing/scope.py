"""A scope without a store: for testing an agent, or a verifier, by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import msgspec

from tfgrpo.dispatch import request_digest, run_tool
from tfgrpo.errors import UsageError
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.protocols import AttemptLimits, Model, Tool
from tfgrpo.rollout.scope import complete_request, find_tool
from tfgrpo.rollout.trajectory import Trace
from tfgrpo.types import (
    EffectKind,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    Task,
    TokenPrior,
    ToolRequest,
    ToolUse,
    Trajectory,
)


class ScriptedScope:
    """One attempt in memory (implements `Scope`): no admission, no budget, no retries, nothing durable.

    Test an agent with `await agent.attempt(ScriptedScope(task, model=ScriptedModel(script)))`, and a verifier with
    `await verifier.verify(ScriptedScope(task, answer="42"))`. Requests are checked, seeded and put into the trajectory
    as in a run, and times are the event loop's.

    Args:
        task: the question.
        answer: the answer that is graded; without one it is the last assistant message.
        model: answers `ask` and `judge`, such as a `ScriptedModel`; None permits neither.
        messages: the assembled prompt; by default the prior, where there is one, and the question.
        prior: the token prior; by default an empty one.
        tools: that `call` knows by name.
    """

    def __init__(
        self,
        task: Task,
        *,
        answer: str = "",
        model: Model | None = None,
        messages: Iterable[Message] | None = None,
        prior: TokenPrior | None = None,
        tools: Iterable[Tool] = (),
    ) -> None:
        self._task = task
        self._prior = PromptAssembler(ExperienceLibrary.empty()).prior if prior is None else prior
        if messages is None:
            told = (Message("system", self._prior.text),) if self._prior.text else ()
            messages = (*told, Message("user", task.input))
        self._messages = tuple(messages)
        self._model = model
        self._tools = {tool.name: tool for tool in tools}
        self._key = Key("scripted", task=task.id, index=0)
        self._asked: Counter[str] = Counter()
        self._trace = Trace(self._messages)
        self._answer: str | None = None
        if answer:
            self.answered(answer)

    @property
    def task(self) -> Task:
        """The question."""
        return self._task

    @property
    def index(self) -> int:
        """The number of this attempt at the task: 0."""
        return 0

    @property
    def prior(self) -> TokenPrior:
        """The learned token prior; its text is empty where there is none."""
        return self._prior

    @property
    def messages(self) -> tuple[Message, ...]:
        """The assembled prompt."""
        return self._messages

    @property
    def limits(self) -> AttemptLimits:
        """The bounds of an attempt, of which none is enforced here."""
        return AttemptLimits()

    @property
    def trajectory(self) -> Trajectory:
        """The attempt so far."""
        return self._trace.trajectory

    @property
    def answer(self) -> str:
        """The answer that is graded; until there is one the last assistant message."""
        return self.trajectory.answer if self._answer is None else self._answer

    def answered(self, answer: str) -> None:
        """Take an agent's answer, as a run does when the agent returns: from now on it is what is graded."""
        self._answer = answer
        self._trace.end(answer)

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Ask the model, and note it in the trajectory; see `Scope.ask`."""
        request = complete_request(request, None)
        turn = self._trace.ask(request.messages)
        reply = await self._complete(Role.ROLLOUT, request)
        self._trace.answered(turn, reply.message)
        return reply

    async def judge(self, request: ModelRequest) -> ModelReply:
        """Ask the model as a judge; see `Scope.judge`."""
        return await self._complete(Role.JUDGE, complete_request(request, None))

    async def call(self, tool: Tool | str, arguments: Mapping[str, Any]) -> str:
        """Run a tool, and note it in the trajectory; see `Scope.call`."""
        used = find_tool(self._tools, tool)
        request = ToolRequest(used.name, dict(arguments))
        request_digest(request)
        started = anyio.current_time()
        text = await run_tool(used, request.arguments)
        seconds = round(anyio.current_time() - started, 3)
        self._trace.used(ToolUse(used.name, request.arguments, text, seconds))
        return text

    def note(self, text: str) -> None:
        """Add a remark to the trajectory; see `Scope.note`."""
        self._trace.note(text)

    async def _complete(self, role: Role, request: ModelRequest) -> ModelReply:
        if self._model is None:
            raise UsageError(
                "This ScriptedScope has no model to ask; give one: ScriptedScope(task, model=…)."
            )
        digest = request_digest(request).hex()[:16]
        kind = EffectKind.JUDGE if role is Role.JUDGE else EffectKind.MODEL
        name = f"{kind.value}/{digest}"
        key = self._key.do(kind.value, digest, str(self._asked[name]))
        self._asked[name] += 1
        if request.seed is None:
            request = msgspec.structs.replace(request, seed=key.seed(0))
        return await self._model.complete(request, key=key.text)
