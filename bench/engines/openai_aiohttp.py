"""openai with its aiohttp backend, `DefaultAioHttpClient`, on uvloop."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from bench.engines import openai_default


class Engine(openai_default.Engine):
    def describe(self) -> str:
        return (
            f"openai {version('openai')} with DefaultAioHttpClient, aiohttp {version('aiohttp')}, on uvloop"
        )

    def client(self, ask: dict[str, Any]) -> Any:
        openai = importlib.import_module("openai")
        backend = openai.DefaultAioHttpClient()
        return openai.AsyncOpenAI(base_url=ask["url"], api_key="bench", http_client=backend)
