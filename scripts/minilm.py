"""The MiniLM sentence model in numpy: its word pieces and its forward pass, read from the files of the package.

A few megabytes of numpy instead of a deep-learning framework: the script runs once per table, and only forwards.
"""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LONGEST = 128  # pieces of a text that the model reads; a sentence has about 25
HEADS = 12
LAYERS = 6


def _read_safetensors(path: Path) -> dict[str, Floats]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            flat = np.frombuffer(raw[8 + size + start : 8 + size + end], dtype="<f4")
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def _gelu(values: Floats) -> Floats:
    """Give x * Phi(x), by the rational approximation of erf in Abramowitz and Stegun 7.1.26 (error below 2e-7)."""
    scaled = np.abs(values) * np.float32(0.70710678)
    t = 1 / (1 + np.float32(0.3275911) * scaled)
    poly = np.float32(1.061405429) * t - np.float32(1.453152027)
    poly = ((poly * t + np.float32(1.421413741)) * t - np.float32(0.284496736)) * t + np.float32(0.254829592)
    half_tail = np.float32(0.5) * poly * t * np.exp(-scaled * scaled)
    result: Floats = values * np.where(values < 0, half_tail, 1 - half_tail)
    return result


class MiniLM:
    """all-MiniLM-L6-v2: texts to sentence vectors, mean pooled over all pieces."""

    def __init__(self, folder: Path) -> None:
        self.vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        if not self.vocabulary[-1]:
            self.vocabulary.pop()
        self.number = {piece: i for i, piece in enumerate(self.vocabulary)}
        self._tensors = _read_safetensors(folder / "model.safetensors")

    def pieces(self, text: str) -> list[int]:
        """Cut a text into word pieces: lower case, no accents, greedy longest match; unknown words are [UNK]."""
        plain = [
            character
            for character in unicodedata.normalize("NFD", text.lower())
            if unicodedata.category(character) != "Mn"
        ]
        spaced = "".join(
            c if c.isalnum() and not is_ideograph(c) else " " if c.isspace() else f" {c} " for c in plain
        )
        return [number for word in spaced.split() for number in self._cut(word)]

    def _cut(self, word: str) -> list[int]:
        start, cut = 0, []
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.number:
                    cut.append(self.number[piece])
                    start = end
                    break
            else:
                return [self.number["[UNK]"]]
        return cut

    def encode(self, texts: Sequence[list[int]], tokens_a_batch: int = 2048) -> Floats:
        """Encode texts given as lists of pieces; the same length goes together, so nothing is padded."""
        by_length: dict[int, list[int]] = {}
        for i, pieces in enumerate(texts):
            by_length.setdefault(min(len(pieces), LONGEST), []).append(i)
        result = np.zeros((len(texts), 384), dtype=np.float32)
        start, end = self.number["[CLS]"], self.number["[SEP]"]
        for length, members in sorted(by_length.items()):
            step = max(1, tokens_a_batch // (length + 2))
            for at in range(0, len(members), step):
                batch = members[at : at + step]
                ids = np.array([[start, *texts[i][:length], end] for i in batch])
                result[batch] = self._forward(ids)
        return result

    def _dense(self, name: str, values: Floats) -> Floats:
        result: Floats = values @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]
        return result

    def _normalise(self, name: str, values: Floats) -> Floats:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        result: Floats = centred / spread * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return result

    def _forward(self, ids: NDArray[np.int64]) -> Floats:
        rows, length = ids.shape
        tensors = self._tensors
        hidden = (
            tensors["embeddings.word_embeddings.weight"][ids]
            + tensors["embeddings.position_embeddings.weight"][:length]
            + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._normalise("embeddings.LayerNorm", hidden).reshape(rows * length, 384)
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            query, key, value = (
                self._dense(f"{name}.attention.self.{part}", hidden)
                .reshape(rows, length, HEADS, 384 // HEADS)
                .transpose(0, 2, 1, 3)
                for part in ("query", "key", "value")
            )
            scores = query @ key.transpose(0, 1, 3, 2) * np.float32((384 // HEADS) ** -0.5)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            mixed = (scores @ value).transpose(0, 2, 1, 3).reshape(rows * length, 384)
            hidden = self._normalise(
                f"{name}.attention.output.LayerNorm",
                hidden + self._dense(f"{name}.attention.output.dense", mixed),
            )
            inner = _gelu(self._dense(f"{name}.intermediate.dense", hidden))
            hidden = self._normalise(
                f"{name}.output.LayerNorm", hidden + self._dense(f"{name}.output.dense", inner)
            )
        result: Floats = hidden.reshape(rows, length, 384).mean(axis=1)
        return result


def is_ideograph(character: str) -> bool:
    """Tell whether a character is written without spaces between words, so that it is a token by itself."""
    code = ord(character)
    return (
        0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x3FFFF
    )
