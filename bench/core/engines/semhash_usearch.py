"""semhash: `deduplicate` of one record against an index, at its default threshold.

Its own model would have to be fetched; an encoder of one's own is a documented use. Ours looks the vector up, so
semhash pays nothing for embedding.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from bench.core.protocol import Near, Vector, Vectors
from numpy.typing import NDArray


class Known:
    """An encoder of texts whose vectors are known."""

    def __init__(self) -> None:
        self.vectors: dict[str, Vector] = {}

    def encode(self, inputs: Sequence[str] | str, **_: Any) -> NDArray[np.float32]:
        if isinstance(inputs, str):
            return self.vectors[inputs]
        return np.stack([self.vectors[text] for text in inputs])


class Engine:
    def __init__(self) -> None:
        self.known = Known()
        self.index: Any = None
        self.texts: list[str] = []
        self.vectors: list[Vectors] = []
        self.ids: dict[str, int] = {}

    def describe(self) -> str:
        return f"semhash {version('semhash')}, usearch backend, threshold 0.9, vectors looked up"

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        """semhash indexes once, when it is made: the records are gathered here and indexed at the first question."""
        self.texts.extend(texts)
        self.vectors.append(vectors)
        self.index = None

    def finish(self) -> None:
        semhash = importlib.import_module("semhash").SemHash
        self.index = semhash.from_embeddings(np.concatenate(self.vectors), self.texts, model=self.known)
        for number, text in enumerate(self.texts):
            self.ids.setdefault(text, number)

    def near(self, text: str, vector: Vector) -> Near:
        self.known.vectors = {text: vector}
        result = self.index.deduplicate([text])
        ids = [self.ids[duplicate] for record in result.filtered for duplicate, _ in record.duplicates]
        return Near(ids, bool(result.filtered))
