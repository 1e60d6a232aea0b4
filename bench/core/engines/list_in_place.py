"""The prior as it is most often written: a numbered list whose numbers move. For the cached share alone."""

from __future__ import annotations

from typing import Any

from bench.core import practice


class Engine:
    def describe(self) -> str:
        return "the same library as a numbered list; a deletion moves the numbers of all behind it"


def cached(texts: list[str], ask: dict[str, Any]) -> dict[str, float]:
    return practice.cached(texts, ask, practice.list_prompts)
