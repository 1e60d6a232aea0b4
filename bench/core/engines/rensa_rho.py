"""rensa's fast lane: the rho batch pipeline, which samples token positions; 128 slots, eight bands, 0.8."""

from __future__ import annotations

import importlib
from importlib.metadata import version

from bench.core.protocol import DUPLICATE


class Engine:
    def describe(self) -> str:
        return (
            f"rensa {version('rensa')}, rho digest matrix, words, 128 slots, 8 bands, threshold 0.8, one shot"
        )

    def deduplicate(self, texts: list[str]) -> list[int]:
        rensa = importlib.import_module("rensa")
        matrix = rensa.RMinHash.digest_matrix_from_token_sets_rho([text.split() for text in texts], 128, 42)
        flags = rensa.RMinHashLSH(0.8, 128, 8).query_duplicate_flags_matrix_one_shot(matrix)
        return [DUPLICATE if flag else number for number, flag in enumerate(flags)]
