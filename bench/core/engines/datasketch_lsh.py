"""datasketch: MinHash of the words, 128 permutations, `MinHashLSH` at 0.8; candidates checked by their estimate."""

from __future__ import annotations

import importlib
from importlib.metadata import version

from bench.core.protocol import Near, Vector, Vectors

PERMUTATIONS, THRESHOLD = 128, 0.8


def words(text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


class Engine:
    def __init__(self) -> None:
        datasketch = importlib.import_module("datasketch")
        self.minhash = datasketch.MinHash
        self.lsh = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)

    def describe(self) -> str:
        return (
            f"datasketch {version('datasketch')}, MinHash.bulk of words, 128 permutations, "
            f"MinHashLSH threshold 0.8 ({self.lsh.b} bands of {self.lsh.r})"
        )

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        sketches = self.minhash.generator(map(words, texts), num_perm=PERMUTATIONS)
        with self.lsh.insertion_session() as session:
            for number, sketch in enumerate(sketches, first):
                session.insert(number, sketch, check_duplication=False)

    def near(self, text: str, vector: Vector) -> Near:
        (sketch,) = self.minhash.bulk([words(text)], num_perm=PERMUTATIONS)
        found = self.lsh.query(sketch)
        return Near(sorted(found), bool(found))

    def deduplicate(self, texts: list[str]) -> list[int]:
        kept: dict[int, object] = {}
        answer: list[int] = []
        for number, sketch in enumerate(self.minhash.generator(map(words, texts), num_perm=PERMUTATIONS)):
            near = ((-sketch.jaccard(kept[old]), old) for old in self.lsh.query(sketch))
            same = min((pair for pair in near if -pair[0] >= THRESHOLD), default=None)
            answer.append(number if same is None else same[1])
            if same is None:
                self.lsh.insert(number, sketch, check_duplication=False)
                kept[number] = sketch
        return answer
