"""The use of a tool as an effect: durable before it runs, run once for each key, replayed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

from tfgrpo.dispatch.calls import Dispatcher
from tfgrpo.dispatch.effects import NOBODY, Watcher, fault_of, request_digest
from tfgrpo.errors import JournalError, TfgrpoError, ToolError
from tfgrpo.keys import Key
from tfgrpo.protocols import Effect, Tool
from tfgrpo.types import EffectKind, EffectStatus, FaultKind, Role, ToolRequest, ToolResult, Usage


async def use_tool(
    dispatcher: Dispatcher,
    key: Key,
    tool: Tool,
    arguments: Mapping[str, Any],
    *,
    watcher: Watcher = NOBODY,
) -> str:
    """Use a tool, or take what it gave from the store.

    Args:
        dispatcher: of the run.
        key: names the use; always with the same arguments.
        tool: runs once for each key, unless it failed or was cut off.
        arguments: JSON values.
        watcher: told when it begins.

    Raises:
        ToolError: the tool raised, or gave no text.
        UsageError: the arguments have no JSON encoding.
        RunStoppedError, JournalError: the run cannot go on.

    Cancellation: the intent stays open, unless the watcher says why it was given up; the use counts as perhaps done.
    """
    store, halt = dispatcher.store, dispatcher.halted
    request = ToolRequest(tool.name, dict(arguments))
    effect = Effect(key, EffectKind.TOOL, Role.ROLLOUT, request_digest(request), request)
    known = await store.find(key, ToolResult)
    if known is not None and known.status is EffectStatus.COMPLETED:
        return str(known.result.text)
    await dispatcher.may_launch()
    halt.launched()
    try:
        tickets = await store.intend([effect])
        if halt.reason is not None:
            await dispatcher.unsent(tickets)
        watcher.launched()
        try:
            text = await run_tool(tool, request.arguments)
        except TfgrpoError as error:
            await store.fail(tickets[0], fault_of(error, FaultKind.TOOL), maybe_paid=True)
            raise
        except anyio.get_cancelled_exc_class():
            if (given_up := watcher.abandoned()) is not None:
                with anyio.CancelScope(shield=True):
                    await store.fail(tickets[0], fault_of(given_up, FaultKind.TOOL), maybe_paid=True)
            raise
        await store.complete(tickets[0], ToolResult(text), Usage())
    except JournalError as error:
        halt.because(error)
        raise
    finally:
        halt.landed()
    return text


async def run_tool(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Run a tool once, outside of any ledger.

    Raises:
        ToolError: it raised, or gave no text.
    """
    try:
        text = await tool.run(arguments)
    except TfgrpoError:
        raise
    except Exception as error:
        raise ToolError(
            f"The tool {tool.name} raised {type(error).__name__}: {error}. A failed use is text for the model; "
            "what a tool raises is a fault of the tool."
        ) from error
    if not isinstance(text, str):
        raise ToolError(f"The tool {tool.name} gave a {type(text).__name__}; a tool gives text.")
    return text
