"""Distil the static word table of the Rust core (`rust/core/assets/words.bin`) from a sentence model.

    python scripts/distill_words.py --model DIR --text DIR [--text DIR ...] [--out FILE]

`--model` is the folder with `model.safetensors` and `vocab.txt` of all-MiniLM-L6-v2; `--text` are folders of text that
are read for how often words occur, nothing else. Needs numpy. docs/reference/embedding.md says what is in the table,
how it is laid out and which text the shipped one was made from. The same inputs on the same machine give the same
bytes; another machine's matrix products may differ in the last bit and so, here and there, by one step of an int8.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from minilm import MiniLM
from sentences import read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

MAGIC = b"tfgwords"
VERSION = 1
DIMENSIONS = 256
LIMIT = 10_000_000
LONGEST = 24  # bytes of a key; what is longer is composed
SLOTS = 65_536
EMPTY = 0xFFFF
PIECES = 4_000
ROWS = 36_300
SEED = 20


def choose(
    counts: Counter[str], spread: Counter[str], model: MiniLM, rows: int
) -> tuple[list[str], list[int], list[list[int]]]:
    """Choose the keys of the table: single characters, the word pieces that are used most, and whole words.

    A word of the text that is not in the model's vocabulary must occur in two of the paths: the names and the slips of
    a single project are no words. Returns keys, how often each occurs, and what the model reads for each.
    """
    vocabulary, number = model.vocabulary, model.number
    singles = [
        key
        for key in vocabulary
        if len(key.removeprefix("##")) == 1
        and key[-1].isalnum()
        and (key[-1].isascii() or not key.startswith("##"))
    ]
    used: Counter[str] = Counter()
    for word, count in counts.items():
        if word not in number and count >= 2:
            for piece in model.pieces(word):
                used[vocabulary[piece]] += count
    pieces = [key for key in vocabulary if key.startswith("##") and len(key) > 3 and key[2:].isascii()]
    pieces = sorted((key for key in pieces if key[2:].isalpha()), key=lambda key: -used[key])[:PIECES]
    words: dict[str, float] = {}
    for word in vocabulary:
        if (
            1 < len(word) <= LONGEST
            and word.isascii()
            and (word.isalpha() or (word.isdigit() and (len(word) <= 3 or counts[word] >= 50)))
        ):
            words[word] = counts[word] + 0.5
    for word, count in counts.items():
        if 1 < len(word) <= LONGEST and word.isascii() and word.isalpha() and spread[word] >= 2:
            words.setdefault(word, count)
    ranked = sorted(words, key=lambda word: (-words[word], number.get(word, len(number)), word))
    keys = singles + pieces + ranked[: rows - len(singles) - len(pieces)]
    occurs = {key: used[key] if key.startswith("##") else counts[key] for key in keys}
    keys.sort(key=lambda key: (-occurs[key], key))  # what is looked up together lies together
    read_as = [[number[key]] if key in number else model.pieces(key) for key in keys]
    return keys, [occurs[key] for key in keys], read_as


def shape(
    vectors: Doubles, occurs: list[int], total: int, smoothing: float, whitening: float
) -> tuple[Doubles, Doubles]:
    """Shape the model's vectors: centred, on 256 principal axes, partly whitened, of length 1, rotated; and weights."""
    centred = vectors - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    axes = axes[:, ::-1][:, :DIMENSIONS]
    axes = axes * np.sign(
        axes[np.abs(axes).argmax(axis=0), np.arange(DIMENSIONS)]
    )  # a sign per axis is arbitrary
    shaped = centred @ axes / values[::-1][:DIMENSIONS] ** (whitening / 2)
    shaped /= np.maximum(np.linalg.norm(shaped, axis=1, keepdims=True), 1e-12)
    rotation, upper = np.linalg.qr(np.random.default_rng(SEED).standard_normal((DIMENSIONS, DIMENSIONS)))
    shares = np.array(occurs, dtype=np.float64) / total
    return shaped @ (rotation * np.sign(np.diag(upper))), smoothing / (smoothing + shares)


def _hash(key: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in key:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 32)


def pack(keys: list[str], vectors: Doubles, weights: Doubles) -> bytes:
    """Lay out the table as the Rust core reads it in place."""
    scale = np.abs(vectors).max(axis=1) / 127
    quantised = np.rint(vectors / scale[:, None]).astype(np.int8)
    factors = scale * weights
    factors = np.maximum(1, np.rint(factors * (0xFFFF / factors.max()))).astype("<u2")
    encoded = [key.encode() for key in keys]
    slots = np.full(SLOTS, EMPTY, dtype="<u2")
    for row, key in enumerate(encoded):
        slot = _hash(key) % SLOTS
        while slots[slot] != EMPTY:
            slot = (slot + 1) % SLOTS
        slots[slot] = row
    ends = np.cumsum([len(key) for key in encoded]).astype("<u4")
    head = MAGIC + struct.pack(
        "<6I", VERSION, DIMENSIONS, len(keys), SLOTS, int(ends[-1]), max(map(len, encoded))
    )
    body: bytes = (
        quantised.tobytes() + factors.tobytes() + ends.tobytes() + slots.tobytes() + b"".join(encoded)
    )
    return head + hashlib.sha256(head + body).digest() + body


def main() -> int:
    """Read the arguments and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder with model.safetensors and vocab.txt"
    )
    parser.add_argument(
        "--text", type=Path, required=True, action="append", help="text to count words in; repeatable"
    )
    parser.add_argument("--out", type=Path, default=Path("rust/core/assets/words.bin"))
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the table (default: %(default)s)")
    parser.add_argument("--smoothing", type=float, default=6e-3, help="a of a/(a+p) (default: %(default)s)")
    parser.add_argument(
        "--whitening", type=float, default=0.75, help="0: none, 1: full (default: %(default)s)"
    )
    arguments = parser.parse_args()
    model = MiniLM(arguments.model)
    counts, spread, _ = read(arguments.text)
    keys, occurs, read_as = choose(counts, spread, model, arguments.rows)
    vectors = model.encode(read_as).astype(np.float64)
    table = pack(keys, *shape(vectors, occurs, counts.total(), arguments.smoothing, arguments.whitening))
    if len(table) > LIMIT:
        sys.exit(f"the table has {len(table)} bytes, more than {LIMIT}: give fewer --rows")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(table)
    sys.stdout.write(f"{len(keys)} rows, {len(table)} bytes, sha256 {hashlib.sha256(table).hexdigest()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
