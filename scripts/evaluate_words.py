"""Measure how well a word table finds what a paraphrase was made from, among 10,000 real sentences.

    python scripts/evaluate_words.py --table FILE --wordnet DIR --text DIR [--text DIR ...] [--model DIR]

Reads the table as the Rust core does, in Python, so the two are also two independent readings of the format. With
`--model`, the whole sentence model is measured on the same pairs for scale (minutes instead of seconds).
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from minilm import MiniLM, is_ideograph
from paraphrase import Synonyms, paraphrase
from sentences import fold, part, read, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SENTENCES = 10_000
PAIRS = 600
SHORTLIST = 128
TOP = 10
SHARES = (256, 256, 181, 148, 128, 114, 105, 97, 91)


class Table:
    """A word table, read in Python."""

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        _, dimensions, rows, slots, _, self.longest = struct.unpack("<6I", raw[8:32])
        at = 64
        self.values = (
            np.frombuffer(raw, np.int8, rows * dimensions, at).reshape(rows, dimensions).astype(np.int64)
        )
        at += rows * dimensions
        self.weights = np.frombuffer(raw, "<u2", rows, at).astype(np.int64)
        ends = np.frombuffer(raw, "<u4", rows, at + 2 * rows).tolist()
        strings = raw[at + 6 * rows + 2 * slots :]
        keys = [strings[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
        self.row = {key: i for i, key in enumerate(keys)}

    def cut(self, word: str) -> list[int]:
        """Give the rows of a word: its own or its pieces'."""
        if word in self.row:
            return [self.row[word]]
        if not word.isascii():
            word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c)[0] != "M")
        cut: list[int] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self.longest), start, -1):
                key = ("##" if cut else "") + word[start:end]
                if key in self.row:
                    cut.append(self.row[key])
                    start = end
                    break
            else:
                start += 1
        return cut

    def sum(self, text: str) -> NDArray[np.int64]:
        """Add up the weighted rows of a folded text."""
        spaced = "".join(f" {c} " if is_ideograph(c) else c for c in text)
        total = np.zeros(self.values.shape[1], np.int64)
        for cut in map(self.cut, words(spaced)):
            share = SHARES[min(len(cut), 8)]
            for row in cut:
                total += self.values[row] * (self.weights[row] * share >> 8)
        return total


def quantise(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Round to int8 as the core does, and scale to length 1."""
    most = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-30)
    rounded = np.rint(vectors * 127.0 / most).astype(np.float32)
    scaled: NDArray[np.float32] = rounded / np.maximum(np.linalg.norm(rounded, axis=1, keepdims=True), 1e-12)
    return scaled


def found(pool: NDArray[np.float32], asked: NDArray[np.float32], bases: Sequence[int]) -> dict[str, float]:
    """Give the share of the paraphrases whose base is first, among the first ten, and so after a shortlist by codes."""
    cosines = asked @ pool.T
    own = cosines[np.arange(len(bases)), bases][:, None]
    before = (cosines > own).sum(axis=1)
    distance = -(
        np.where(asked > 0, 1, -1).astype(np.float32) @ np.where(pool > 0, 1, -1).astype(np.float32).T
    )
    shortlist = np.argsort(distance, axis=1, kind="stable")[:, :SHORTLIST]
    listed = (shortlist == np.array(bases)[:, None]).any(axis=1)
    better = (np.take_along_axis(cosines, shortlist, axis=1) > own).sum(axis=1)
    return {
        "first": float((before < 1).mean()),
        "top_10": float((before < TOP).mean()),
        "top_10_by_codes": float((listed & (better < TOP)).mean()),
        "cosine": float(own.mean()),
    }


def main() -> int:
    """Read the arguments, make the pairs and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=Path("rust/core/assets/words.bin"))
    parser.add_argument(
        "--wordnet", type=Path, required=True, help="folder with WordNet's index.* and data.*"
    )
    parser.add_argument(
        "--text", type=Path, required=True, action="append", help="text to take sentences from"
    )
    parser.add_argument("--model", type=Path, help="folder of the whole model, to measure it too")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    _, _, lines = read(arguments.text)
    rng = random.Random(arguments.seed)
    lines = [fold(line) for line in lines if part(line, 8) == 0 and 8 <= len(line.split()) <= 30]
    rng.shuffle(lines)
    pool = lines[:SENTENCES]
    synonyms = Synonyms(arguments.wordnet)
    table = Table(arguments.table)
    model = MiniLM(arguments.model) if arguments.model else None
    report = sys.stdout.write
    for name, share in (("most words replaced", 0.6), ("every word replaced", 1.0)):
        made = [(i, paraphrase(line, synonyms, rng, share)) for i, line in enumerate(pool)]
        pairs = [(i, text) for i, text in made if text is not None][:PAIRS]
        bases = [i for i, _ in pairs]
        texts = pool + [text for _, text in pairs]
        common = [
            len(set(words(pool[i])) & set(words(t))) / len(set(words(pool[i])) | set(words(t)))
            for i, t in pairs
        ]
        report(f"{name}: {len(pairs)} pairs, {np.mean(common):.2f} of the words in common\n")
        vectors = quantise(np.stack([table.sum(text) for text in texts]))
        report(f"  table {found(vectors[: len(pool)], vectors[len(pool) :], bases)}\n")
        if model:
            whole = model.encode([model.pieces(text) for text in texts])
            whole /= np.linalg.norm(whole, axis=1, keepdims=True)
            report(f"  model {found(whole[: len(pool)], whole[len(pool) :], bases)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
