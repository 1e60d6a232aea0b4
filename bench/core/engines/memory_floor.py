"""How fast this machine reads the bytes at all: the quickest of several one-thread read kernels of numpy.

No scan can be quicker than reading its rows once. Which kernel comes nearest to the memory's speed differs between
machines, so all are tried and the quickest counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from bench.core.protocol import Vector, Vectors


class Engine:
    def describe(self) -> str:
        return f"numpy {np.__version__}: the quickest of sum, or, max over 8-byte words and a float32 dot product"

    def prepare_scan(self, vectors: Vectors) -> None:
        random = np.random.default_rng(1)
        self.bytes = random.integers(0, 1 << 62, vectors.size // 8, dtype=np.uint64)
        self.floats = random.random(vectors.size // 4, dtype=np.float32)

    def floor(self) -> float:
        """CPU seconds of one pass over the bytes."""
        kernels: tuple[Callable[[], object], ...] = (
            lambda: np.add.reduce(self.bytes),
            lambda: np.maximum.reduce(self.bytes),
            lambda: np.bitwise_or.reduce(self.bytes),
            lambda: self.floats.dot(self.floats),
        )
        passes = []
        for kernel in kernels:
            start = time.process_time()
            kernel()
            passes.append(time.process_time() - start)
        return min(passes)

    def scan(self, vector: Vector) -> list[int]:
        raise NotImplementedError
