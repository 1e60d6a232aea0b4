"""Agents of strangers: written against the public names alone."""

from __future__ import annotations

import time

import anyio

import tfgrpo


class ThreeTurns:
    """Drafts and, in parallel, asks something that holds the time; then has the draft checked; answers with it."""

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        drafts: list[tfgrpo.ModelReply] = []

        async def draft() -> None:
            drafts.append(await scope.ask(tfgrpo.ModelRequest(scope.messages)))

        async def news() -> None:
            now = tfgrpo.Message("user", f"It is {time.time_ns()} now. What is new?")
            await scope.ask(tfgrpo.ModelRequest((*scope.messages, now)))

        async with anyio.create_task_group() as turns:
            turns.start_soon(draft)
            turns.start_soon(news)
        check = tfgrpo.Message("user", "Check your answer.")
        await scope.ask(tfgrpo.ModelRequest((*scope.messages, drafts[0].message, check)))
        return drafts[0].content


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
