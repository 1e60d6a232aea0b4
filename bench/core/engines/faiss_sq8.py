"""faiss: the flat index over 8-bit scalars, trained on its first batch."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from bench.core.protocol import DIMENSIONS, NEAR, Near, Vector, Vectors


class Engine:
    def __init__(self) -> None:
        faiss = importlib.import_module("faiss")
        faiss.omp_set_num_threads(1)
        self.index: Any = faiss.IndexScalarQuantizer(
            DIMENSIONS, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        self.texts: list[str] = []

    def describe(self) -> str:
        return f"faiss-cpu {version('faiss-cpu')}, IndexScalarQuantizer QT_8bit, inner product, one thread"

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        if not self.index.is_trained:
            self.index.train(vectors)
        self.index.add(vectors)
        self.texts.extend(texts)

    def near(self, text: str, vector: Vector) -> Near:
        return Near(self.index.search(vector[None, :], NEAR)[1][0].tolist())

    def __len__(self) -> int:
        return len(self.texts)

    def prepare_scan(self, vectors: Vectors) -> None:
        self.insert(0, [], vectors)

    def scan(self, vector: Vector) -> list[int]:
        return self.near("", vector).ids
