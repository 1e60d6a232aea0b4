"""The Python twin of each Rust module: what a good Python programmer would write, with numpy where it helps.

Each works on a batch. Token counts and the prior must equal ours to the byte; the others are compared by time alone,
as their verdicts are simpler than the guard's.
"""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

CLOSING = " .,;:!?。、؟،۔"
SLOTS = 64
MASK = (1 << 32) - 1


def key(text: str) -> str:
    """NFKC, lower case, single spaces, no closing punctuation."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    return " ".join(folded.split()).rstrip(CLOSING)


def shingles(text: str) -> list[str]:
    """The words of a text and its pairs of neighbouring words."""
    words = text.split()
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def minhash(text: str) -> NDArray[np.uint32]:
    """One-permutation MinHash: each shingle's hash chooses a slot, the least hash of a slot stays.

    An empty slot takes the value of the next full one.
    """
    hashes = np.fromiter((zlib.crc32(part.encode()) for part in shingles(text)), np.uint64)
    mixed = (hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(16)
    slots = np.full(SLOTS, MASK, np.uint32)
    np.minimum.at(
        slots, (mixed % np.uint64(SLOTS)).astype(np.intp), (mixed & np.uint64(MASK)).astype(np.uint32)
    )
    full = np.flatnonzero(slots != MASK)
    if not len(full):
        return slots
    return slots[full[np.searchsorted(full, np.arange(SLOTS)) % len(full)]]


def best(distance: NDArray[np.generic], count: int) -> list[int]:
    """The places of the `count` least, ties by place."""
    count = min(count, len(distance))
    if not count:
        return []
    bound = np.partition(distance, count - 1)[count - 1]
    near = np.flatnonzero(distance <= bound)
    order: list[int] = near[np.argsort(distance[near], kind="stable")][:count].tolist()
    return order


def int8_top(rows: NDArray[np.float32], query: NDArray[np.int8], count: int) -> list[int]:
    """The rows of greatest dot product with `query`.

    The rows are int8 held as float32: products of 256 such numbers are exact there, and numpy has no quick product
    of int8.
    """
    return best(-(rows @ query.astype(np.float32)), count)


def pack(
    heading: str, head: int, lines: Sequence[str], tokens: Sequence[int], credit: Sequence[float], budget: int
) -> list[object]:
    """Greedy by credit under a budget, chosen lines in their own order; tokens were counted before. Text and tokens."""
    left = budget - head
    chosen: list[int] = []
    for number in sorted(range(len(lines)), key=lambda place: (-credit[place], place)):
        if tokens[number] <= left:
            left -= tokens[number]
            chosen.append(number)
    chosen.sort()
    return [heading + "".join(lines[number] for number in chosen), budget - left]


def difference(a: str, b: str) -> list[tuple[list[str], list[str]]]:
    """The words that differ between two texts, as pairs of runs; what that means is for the guard to say."""
    left, right = key(a).split(), key(b).split()
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    return [(left[i1:i2], right[j1:j2]) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal"]


def bands(slots: NDArray[np.uint32], rows: int = 4) -> list[bytes]:
    """The signature in bands: texts that share one are candidates."""
    return [slots[start : start + rows].tobytes() + bytes([start]) for start in range(0, SLOTS, rows)]


def deduplicate(texts: Sequence[str], least: float = 0.5) -> list[int]:
    """For each text itself, or the first before it that is the same but for slips in its words."""
    exact: dict[str, int] = {}
    buckets: dict[bytes, list[int]] = {}
    sketches: dict[int, NDArray[np.uint32]] = {}
    answer: list[int] = []
    for number, text in enumerate(texts):
        normal = key(text)
        target = exact.setdefault(normal, number)
        if target == number:
            slots = minhash(normal)
            parts = bands(slots)
            for other in sorted({other for part in parts for other in buckets.get(part, ())}):
                alike = float(np.mean(sketches[other] == slots)) >= least
                if alike and all(map(slip, difference(texts[other], text))):
                    target = other
                    break
            if target == number:
                sketches[number] = slots
                for part in parts:
                    buckets.setdefault(part, []).append(number)
        answer.append(target)
    return answer


def slip(differs: tuple[list[str], list[str]]) -> bool:
    """Whether one word of letters became another that is nearly the same: what a guard at its simplest lets pass."""
    left, right = differs
    if len(left) != 1 or len(right) != 1 or not (left[0].isalpha() and right[0].isalpha()):
        return False
    return difflib.SequenceMatcher(None, left[0], right[0], autojunk=False).ratio() >= 0.8


class Library:
    """Texts with what the library keeps of each, but for its vector: key, signature, bands, tokens, digest."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.keys: dict[str, int] = {}
        self.buckets: dict[bytes, tuple[int, ...]] = {}
        self.sketches: dict[int, NDArray[np.uint32]] = {}
        self.tokens: dict[int, int] = {}
        self.digest = ""

    def added(self, texts: Sequence[str], count: Callable[[str], int]) -> Library:
        """The next library; this one stays as it is."""
        after = Library()
        after.texts, after.keys, after.buckets = dict(self.texts), dict(self.keys), dict(self.buckets)
        after.sketches, after.tokens = dict(self.sketches), dict(self.tokens)
        state = hashlib.sha256(self.digest.encode())
        for text in texts:
            normal = key(text)
            number = len(after.texts) + 1
            if after.keys.setdefault(normal, number) != number:
                continue
            slots = minhash(normal)
            for part in bands(slots):
                after.buckets[part] = (*after.buckets.get(part, ()), number)
            after.texts[number], after.sketches[number] = text, slots
            after.tokens[number] = count(f"[E{number}] {text}\n")
            state.update(text.encode())
        after.digest = state.hexdigest()
        return after
