"""hnswlib: HNSW over float32 with the values of its README (M 16, ef_construction 200, ef 50)."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import numpy as np
from bench.core.protocol import DIMENSIONS, NEAR, Near, Vector, Vectors

START = 16_384


class Engine:
    def __init__(self) -> None:
        hnswlib = importlib.import_module("hnswlib")
        self.index = hnswlib.Index(space="cosine", dim=DIMENSIONS)
        self.index.init_index(max_elements=START, ef_construction=200, M=16, random_seed=100)
        self.index.set_ef(50)
        self.index.set_num_threads(1)

    def describe(self) -> str:
        return f"hnswlib {version('hnswlib')}, cosine, float32, M 16, ef_construction 200, ef 50, one thread"

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        needed = first + len(texts)
        if needed > self.index.get_max_elements():
            self.index.resize_index(max(needed, 2 * self.index.get_max_elements()))
        self.index.add_items(vectors, np.arange(first, needed))

    def near(self, text: str, vector: Vector) -> Near:
        return Near(self.index.knn_query(vector, k=NEAR)[0][0].tolist())
