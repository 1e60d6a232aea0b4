"""numpy: every cosine by one float32 product over contiguous unit vectors, the best ten by `argpartition`."""

from __future__ import annotations

import numpy as np
from bench.core.protocol import DIMENSIONS, NEAR, Near, Vector, Vectors

START = 1024


class Engine:
    def __init__(self) -> None:
        self.rows = np.empty((START, DIMENSIONS), np.float32)
        self.size = 0

    def describe(self) -> str:
        return f"numpy {np.__version__}, float32, brute force, one thread"

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        needed = first + len(texts)
        if needed > len(self.rows):
            grown = np.empty((max(needed, 2 * len(self.rows)), DIMENSIONS), np.float32)
            grown[: self.size] = self.rows[: self.size]
            self.rows = grown
        self.rows[first:needed] = vectors
        self.size = needed

    def near(self, text: str, vector: Vector) -> Near:
        scores = self.rows[: self.size] @ vector
        best = np.argpartition(scores, -NEAR)[-NEAR:]
        return Near(best[np.argsort(-scores[best], kind="stable")].tolist())
