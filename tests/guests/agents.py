"""Agents of strangers: written against the public names alone."""

from __future__ import annotations

import time

import anyio

import tfgrpo


class ThreeTurns:
    """Drafts; then checks the draft and asks for the time-bound news in parallel; answers with the draft."""

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        draft = await scope.ask(tfgrpo.ModelRequest(scope.messages))
        said = (*scope.messages, draft.message)

        async def further(text: str) -> None:
            await scope.ask(tfgrpo.ModelRequest((*said, tfgrpo.Message("user", text))))

        async with anyio.create_task_group() as turns:
            turns.start_soon(further, "Check your answer.")
            turns.start_soon(further, f"It is {time.time_ns()} now. Does that change it?")
        return draft.content


class Different:
    """Asks with a number of its own in its first request, so that no two first requests of a group are equal."""

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        mine = tfgrpo.Message("system", f"I am attempt {scope.index} at {scope.task.id}.")
        reply = await scope.ask(tfgrpo.ModelRequest((mine, *scope.messages)))
        return reply.content


class BreaksAfterTwoTurns:
    """Has a bug behind its second turn."""

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        first = await scope.ask(tfgrpo.ModelRequest(scope.messages))
        more = tfgrpo.Message("user", "Go on.")
        second = await scope.ask(tfgrpo.ModelRequest((*scope.messages, first.message, more)))
        return second.answer  # type: ignore[attr-defined, no-any-return]
