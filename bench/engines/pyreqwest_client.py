"""pyreqwest: reqwest's Python binding, with orjson, on uvloop. No retry, no limit, nothing kept."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from bench.engine import work
from bench.engine.protocol import Answer


class Engine:
    loop = "uvloop"

    def describe(self) -> str:
        return f"pyreqwest {version('pyreqwest')}, orjson {version('orjson')}, on uvloop: one POST a call"

    async def open(self, ask: dict[str, Any]) -> None:
        self.orjson = importlib.import_module("orjson")
        builder = importlib.import_module("pyreqwest.client").ClientBuilder()
        self.client = await builder.build().__aenter__()
        self.url = ask["url"] + "/chat/completions"

    async def call(self, index: int) -> Answer:
        body = {
            "model": work.MODEL,
            "messages": work.messages(index),
            "max_tokens": work.MAX_TOKENS,
            "seed": index,
        }
        post = self.client.post(self.url).header("content-type", "application/json")
        response = await post.body_bytes(self.orjson.dumps(body)).build().send()
        if response.status != 200:
            raise RuntimeError(f"status {response.status}")
        value = self.orjson.loads(memoryview(await response.bytes()))
        return Answer(value["choices"][0]["message"]["content"], value["usage"]["total_tokens"])

    async def close(self) -> None:
        await self.client.__aexit__(None, None, None)
