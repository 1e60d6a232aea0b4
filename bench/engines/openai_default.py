"""openai: `AsyncOpenAI` as it comes, on uvloop, which is a favour to it. Retries at its default."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from bench.engine import work
from bench.engine.protocol import Answer


class Engine:
    loop = "uvloop"

    def describe(self) -> str:
        return f"openai {version('openai')}, AsyncOpenAI() as it comes, on uvloop"

    def client(self, ask: dict[str, Any]) -> Any:
        openai = importlib.import_module("openai")
        return openai.AsyncOpenAI(base_url=ask["url"], api_key="bench")

    async def open(self, ask: dict[str, Any]) -> None:
        self.openai = self.client(ask)
        self.stream = ask.get("stream", False)

    async def call(self, index: int) -> Answer:
        body: dict[str, Any] = {
            "model": work.MODEL,
            "messages": work.messages(index),
            "max_tokens": work.MAX_TOKENS,
            "seed": index,
        }
        if self.stream:
            return await self._stream(body)
        reply = await self.openai.chat.completions.create(**body)
        return Answer(reply.choices[0].message.content, reply.usage.total_tokens)

    async def _stream(self, body: dict[str, Any]) -> Answer:
        pieces: list[str] = []
        tokens = 0
        stream = await self.openai.chat.completions.create(
            **body, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if chunk.choices:
                pieces.append(chunk.choices[0].delta.content or "")
            if chunk.usage is not None:
                tokens = chunk.usage.total_tokens
        return Answer("".join(pieces), tokens)

    async def close(self) -> None:
        await self.openai.close()
