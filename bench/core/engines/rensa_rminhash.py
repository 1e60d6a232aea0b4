"""rensa: `RMinHashDeduplicator.add_pairs` over the words, as its README does it: 128 permutations, LSH, 0.8."""

from __future__ import annotations

import importlib
from importlib.metadata import version

from bench.core.protocol import DUPLICATE


class Engine:
    def describe(self) -> str:
        return f"rensa {version('rensa')}, RMinHashDeduplicator, words, 128 permutations, LSH, threshold 0.8"

    def deduplicate(self, texts: list[str]) -> list[int]:
        make = importlib.import_module("rensa").RMinHashDeduplicator
        keep = make(threshold=0.8, num_perm=128, use_lsh=True).add_pairs(
            (str(number), text.split()) for number, text in enumerate(texts)
        )
        return [number if stays else DUPLICATE for number, stays in enumerate(keep)]
