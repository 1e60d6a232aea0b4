"""rapidfuzz again, with the scorer that its other `process` functions take by default: `fuzz.WRatio`."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import numpy as np
from bench.core.engines.rapidfuzz_cdist import Engine as Ratio
from bench.core.protocol import NEAR, Near, Vector


class Engine(Ratio):
    def __init__(self) -> None:
        super().__init__()
        self.scorer = importlib.import_module("rapidfuzz.fuzz").WRatio

    def describe(self) -> str:
        return f"rapidfuzz {version('rapidfuzz')}, process.cdist, fuzz.WRatio, one worker"

    def near(self, text: str, vector: Vector) -> Near:
        scores = self.cdist([text], self.texts, scorer=self.scorer)[0]
        best = np.argpartition(scores, -NEAR)[-NEAR:]
        return Near(best[np.argsort(-scores[best], kind="stable")].tolist())
