"""The scripted scope: agents and verifiers by themselves, with what a run would have kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tfgrpo.errors import ToolError, UsageError
from tfgrpo.protocols import Scope
from tfgrpo.rollout import DirectAgent
from tfgrpo.testing import FaultPlan, FaultType, ScriptedModel, ScriptedScope
from tfgrpo.types import Message, ModelRequest, Task
from tfgrpo.verify import ExactVerifier

TASK = Task("t", "Where to?", "north")
MODEL = ScriptedModel(lambda request: f"turn {len(request.messages)}")


class Echo:
    """A tool that says what it is told."""

    name = "echo"

    async def run(self, arguments: Mapping[str, Any]) -> str:
        return str(arguments["say"])


async def test_an_agent_by_itself_and_its_answer_graded() -> None:
    scope = ScriptedScope(TASK, model=ScriptedModel(lambda request: "North."))
    assert await DirectAgent().attempt(scope) == "North."
    assert scope.trajectory.messages == (Message("user", "Where to?"), Message("assistant", "North."))
    assert scope.answer == "North."
    assert (await ExactVerifier().verify(scope)).value == 1.0


async def test_a_verifier_by_itself() -> None:
    scope: Scope = ScriptedScope(TASK, answer="south")
    assert (await ExactVerifier().verify(scope)).value == 0.0
    assert scope.trajectory.answer == scope.answer == "south"
    assert (scope.index, scope.prior.text, scope.task) == (0, "", TASK)


async def test_turns_tools_and_notes_stand_in_the_trajectory_and_judgements_do_not() -> None:
    scope = ScriptedScope(TASK, model=MODEL, tools=[Echo()])
    first = await scope.ask(ModelRequest(scope.messages))
    assert await scope.call("echo", {"say": "cold"}) == "cold"
    assert await scope.call(Echo(), {"say": "warm"}) == "warm"
    scope.note("I turned back.")
    await scope.ask(ModelRequest((*scope.messages, first.message, Message("user", "and then?"))))
    await scope.judge(ModelRequest((Message("user", "was it good?"),)))
    trajectory = scope.trajectory
    assert [(use.name, use.result) for use in trajectory.tools] == [("echo", "cold"), ("echo", "warm")]
    assert [m.content for m in trajectory.messages if m.role == "assistant"] == ["turn 1", "turn 3"]
    assert Message("note", "I turned back.") in trajectory.messages
    assert "was it good?" not in [message.content for message in trajectory.messages]


async def test_the_same_request_twice_has_two_seeds_and_a_test_is_repeatable() -> None:
    seeds: list[list[int | None]] = []
    for _ in range(2):
        model = ScriptedModel(lambda request: "x")
        scope = ScriptedScope(TASK, model=model)
        for _ in range(2):
            await scope.ask(ModelRequest(scope.messages))
        seeds.append([request.seed for request in model.requests])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 2


async def test_what_fails_in_a_run_fails_here() -> None:
    scope = ScriptedScope(TASK)
    with pytest.raises(UsageError, match="no model to ask"):
        await scope.ask(ModelRequest(scope.messages))
    with pytest.raises(ToolError, match="no tool 'hammer'"):
        await scope.call("hammer", {})
    with pytest.raises(ToolError, match="raised KeyError"):
        await scope.call(Echo(), {})
    with pytest.raises(UsageError, match="cannot be kept"):
        await scope.call(Echo(), {"say": object()})
    with pytest.raises(UsageError, match="no messages"):
        await scope.ask(ModelRequest(()))
    broken = ScriptedModel(
        lambda request: "x", faults=FaultPlan().when(lambda call: True, FaultType.CONTEXT_LENGTH)
    )
    scope = ScriptedScope(TASK, model=broken)
    with pytest.raises(Exception, match="planned fault"):
        await scope.ask(ModelRequest(scope.messages))
    assert scope.trajectory.messages == scope.messages
