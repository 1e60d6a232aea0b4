"""Uses of tools are effects: replayed when completed, never run twice, their failures recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from tests.support.dispatching import opened

from tfgrpo.dispatch import use_tool
from tfgrpo.errors import InterruptedRunError, RunStoppedError, ToolError, UsageError
from tfgrpo.journal import MemoryStore
from tfgrpo.keys import Key
from tfgrpo.testing import ScriptedModel, VirtualClock
from tfgrpo.types import EffectStatus, FaultKind, ToolResult

KEY = Key("attempt", task="t", index=0).do("tool", "abc", "0")


class Counting:
    """Counts its runs; raises or returns what it is told."""

    name = "count"

    def __init__(self, gives: Any = "one", seconds: float = 0.0) -> None:
        self.runs = 0
        self._gives = gives
        self._seconds = seconds

    async def run(self, arguments: Mapping[str, Any]) -> str:
        self.runs += 1
        await anyio.sleep(self._seconds)
        if isinstance(self._gives, Exception):
            raise self._gives
        return self._gives  # type: ignore[no-any-return]


def model() -> ScriptedModel:
    return ScriptedModel(lambda request: "x")


async def test_what_is_completed_is_replayed_and_never_run_again() -> None:
    tool, store = Counting(), MemoryStore()
    for _ in range(2):
        async with opened(model(), store=store) as dispatcher:
            assert await use_tool(dispatcher, KEY, tool, {"a": 1}) == "one"
            assert await use_tool(dispatcher, KEY, tool, {"a": 1}) == "one"
        store = store.reopened()
    assert tool.runs == 1


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (ToolError("The oven is cold."), "The oven is cold"),
        (KeyError("x"), r"The tool count raised KeyError: 'x'"),
        (7, "gave a int; a tool gives text"),
    ],
)
async def test_a_failure_is_recorded_and_may_be_tried_again(gives: Any, told: str) -> None:
    store = MemoryStore()
    async with opened(model(), store=store) as dispatcher:
        with pytest.raises(ToolError, match=told):
            await use_tool(dispatcher, KEY, Counting(gives), {})
        known = await store.find(KEY, ToolResult)
        assert known is not None
        assert (known.status, known.attempt) == (EffectStatus.FAILED, 0)
        assert known.fault is not None
        assert (known.fault.kind, known.fault.error) == (FaultKind.TOOL, "ToolError")
        assert await use_tool(dispatcher, KEY, Counting("better"), {}) == "better"
        known = await store.find(KEY, ToolResult)
        assert known is not None
        assert (known.status, known.attempt) == (EffectStatus.COMPLETED, 1)


async def test_a_use_that_is_cut_off_stays_open_and_counts_as_perhaps_done() -> None:
    tool, store = Counting(seconds=1e6), MemoryStore()
    async with opened(model(), store=store) as dispatcher:
        with anyio.move_on_after(0.01) as scope:
            await use_tool(dispatcher, KEY, tool, {})
        assert scope.cancelled_caught
        known = await store.find(KEY, ToolResult)
        assert known is not None
        assert known.status is EffectStatus.OPEN
    assert [left.key async for left in store.reopened().left_open()] == [KEY]


async def test_arguments_that_cannot_be_kept_are_refused_before_anything_is_done() -> None:
    tool = Counting()
    async with opened(model()) as dispatcher:
        with pytest.raises(UsageError, match="cannot be kept"):
            await use_tool(dispatcher, KEY, tool, {"a": object()})
    assert tool.runs == 0


def test_no_tool_is_started_once_the_run_has_to_stop() -> None:
    tool = Counting()

    async def main() -> None:
        async with opened(model()) as dispatcher:
            dispatcher.halt(InterruptedRunError("enough"))
            with pytest.raises(RunStoppedError, match="enough"):
                await use_tool(dispatcher, KEY, tool, {})

    VirtualClock().run(main)
    assert tool.runs == 0
