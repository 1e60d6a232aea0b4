"""rapidfuzz: `process.cdist` of one text against all, its default scorer (`fuzz.ratio`), the best ten."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import numpy as np
from bench.core.protocol import NEAR, Near, Vector, Vectors


class Engine:
    def __init__(self) -> None:
        self.cdist = importlib.import_module("rapidfuzz.process").cdist
        self.texts: list[str] = []

    def describe(self) -> str:
        return f"rapidfuzz {version('rapidfuzz')}, process.cdist, fuzz.ratio, one worker"

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        self.texts.extend(texts)

    def near(self, text: str, vector: Vector) -> Near:
        scores = self.cdist([text], self.texts)[0]
        best = np.argpartition(scores, -NEAR)[-NEAR:]
        return Near(best[np.argsort(-scores[best], kind="stable")].tolist())
