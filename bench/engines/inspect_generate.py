"""inspect-ai: `Model.generate` with `max_connections` at the calls in flight."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from bench.engine import work
from bench.engine.protocol import Answer


class Engine:
    loop = "asyncio"

    def describe(self) -> str:
        return (
            f"inspect-ai {version('inspect-ai')}, get_model('openai/…').generate, openai {version('openai')}"
        )

    async def open(self, ask: dict[str, Any]) -> None:
        models = importlib.import_module("inspect_ai.model")
        self.config = models.GenerateConfig
        self.parts = {"system": models.ChatMessageSystem, "user": models.ChatMessageUser}
        self.model = models.get_model(
            f"openai/{work.MODEL}",
            base_url=ask["url"],
            api_key="bench",
            responses_api=False,
            config=models.GenerateConfig(max_connections=ask["in_flight"], max_tokens=work.MAX_TOKENS),
        )

    async def call(self, index: int) -> Answer:
        messages = [
            self.parts[message["role"]](content=message["content"]) for message in work.messages(index)
        ]
        output = await self.model.generate(messages, config=self.config(seed=index))
        return Answer(output.completion, output.usage.total_tokens)

    async def close(self) -> None:
        await self.model.api.aclose()
