"""Retrieval by question: each prompt holds its own twenty nearest experiences. For the cached share alone."""

from __future__ import annotations

from typing import Any

from bench.core import practice


class Engine:
    def describe(self) -> str:
        return "the same library, each question with its own twenty nearest experiences"


def cached(texts: list[str], ask: dict[str, Any]) -> dict[str, float]:
    return practice.cached(texts, ask, practice.question_prompts)
