"""litellm: `acompletion` against an OpenAI-compatible endpoint."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from bench.engine import work
from bench.engine.protocol import Answer


class Engine:
    loop = "asyncio"

    def describe(self) -> str:
        return f"litellm {version('litellm')}, acompletion('openai/…')"

    async def open(self, ask: dict[str, Any]) -> None:
        self.litellm = importlib.import_module("litellm")
        self.where = {"model": f"openai/{work.MODEL}", "api_base": ask["url"], "api_key": "bench"}

    async def call(self, index: int) -> Answer:
        reply = await self.complete(messages=work.messages(index), max_tokens=work.MAX_TOKENS, seed=index)
        return Answer(reply.choices[0].message.content, reply.usage.total_tokens)

    async def complete(self, **body: Any) -> Any:
        return await self.litellm.acompletion(**self.where, **body)

    async def close(self) -> None:
        return
