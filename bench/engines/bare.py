"""The floor: aiohttp and orjson on uvloop, nothing around them. No retry, no limit, nothing kept."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import aiohttp
import orjson
from bench.engine import work
from bench.engine.protocol import Answer

HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer bench"}


class Engine:
    loop = "uvloop"

    def describe(self) -> str:
        packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "orjson", "uvloop"))
        return f"{packages}: one POST a call, body by orjson, answer by orjson"

    async def open(self, ask: dict[str, Any]) -> None:
        self.url = ask["url"] + "/chat/completions"
        self.stream = ask.get("stream", False)
        connector = aiohttp.TCPConnector(limit=ask["in_flight"])
        timeout = aiohttp.ClientTimeout(total=None)
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def call(self, index: int) -> Answer:
        body = {
            "model": work.MODEL,
            "messages": work.messages(index),
            "max_tokens": work.MAX_TOKENS,
            "seed": index,
        }
        if self.stream:
            return await self._stream(body)
        async with self.session.post(self.url, data=orjson.dumps(body), headers=HEADERS) as response:
            content = await response.read()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}")
        value = orjson.loads(content)
        return Answer(value["choices"][0]["message"]["content"], value["usage"]["total_tokens"])

    async def _stream(self, body: dict[str, Any]) -> Answer:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        pieces: list[str] = []
        tokens = 0
        async with self.session.post(self.url, data=orjson.dumps(body), headers=HEADERS) as response:
            if response.status != 200:
                raise RuntimeError(f"status {response.status}")
            async for line in response.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = orjson.loads(line[6:])
                if event["choices"]:
                    pieces.append(event["choices"][0]["delta"].get("content") or "")
                if event["usage"]:
                    tokens = event["usage"]["total_tokens"]
        return Answer("".join(pieces), tokens)

    async def close(self) -> None:
        await self.session.close()
