"""usearch: HNSW over int8, the defaults of its documentation (connectivity 16, expansions 128 and 64)."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import numpy as np
from bench.core.protocol import DIMENSIONS, NEAR, Near, Vector, Vectors


class Engine:
    def __init__(self) -> None:
        usearch = importlib.import_module("usearch.index")
        self.index = usearch.Index(
            ndim=DIMENSIONS, metric="cos", dtype="i8", connectivity=16, expansion_add=128, expansion_search=64
        )

    def describe(self) -> str:
        return (
            f"usearch {version('usearch')}, HNSW, cos, i8, connectivity 16, expansion_add 128, "
            "expansion_search 64, one thread"
        )

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        self.index.add(np.arange(first, first + len(texts)), vectors, threads=1)

    def near(self, text: str, vector: Vector) -> Near:
        return Near(self.index.search(vector, NEAR, threads=1).keys.tolist())
