"""numpy as cosine is most often written: the formula, norms and all, and a full sort."""

from __future__ import annotations

import numpy as np
from bench.core.engines.numpy_cosine import Engine as Prepared
from bench.core.protocol import NEAR, Near, Vector


class Engine(Prepared):
    def describe(self) -> str:
        return f"numpy {np.__version__}, float32, norms computed for each question, full argsort, one thread"

    def near(self, text: str, vector: Vector) -> Near:
        rows = self.rows[: self.size]
        scores = (rows @ vector) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(vector))
        return Near(np.argsort(scores)[::-1][:NEAR].tolist())
