"""Ours: every call journaled, admitted, accounted and shown; see `bench.engine.ours`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from bench.engine.ours import Opened, config_for, fill, first_call, practise
from bench.engine.protocol import Answer
from bench.engine.resumes import fill_run, first_of_run


class Engine:
    loop = "uvloop"

    def describe(self) -> str:
        return f"tfgrpo {version('tfgrpo')}: journal (synchronous=FULL), admission, budget, usage and progress on"

    async def open(self, ask: dict[str, Any]) -> None:
        self.opened = Opened(ask, config_for(ask))
        await self.opened.open()

    async def call(self, index: int) -> Answer:
        return await self.opened.call(index)

    async def work(self, ask: dict[str, Any]) -> dict[str, Any]:
        ways = {
            "practise": practise,
            "fill": fill,
            "first_call": first_call,
            "fill_run": fill_run,
            "first_of_run": first_of_run,
        }
        return await ways[ask["what"]](ask)

    async def close(self) -> None:
        await self.opened.close()
