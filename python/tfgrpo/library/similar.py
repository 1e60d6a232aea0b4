"""What a text is to a library: neighbours, verdicts, duplicates, and who makes the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tfgrpo.types import Struct

#: One row a text.
Vectors = npt.NDArray[np.float32]


class Verdict(StrEnum):
    """What a text is to a library, the strongest first. Only a duplicate may be acted on without a model."""

    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    RELATED = "related"
    NEW = "new"


class Difference(Struct, frozen=True):
    """Words that differ and matter: `left` the experience's, `right` the text's, `kind` what they are."""

    kind: str
    left: str = ""
    right: str = ""


class Neighbour(Struct, frozen=True):
    """An experience near a text.

    `similarity` is the cosine of their vectors, `overlap` the estimated share of common words and bigrams
    (Jaccard), `differences` the words that decided the verdict.
    """

    id: str
    verdict: Verdict
    similarity: float
    overlap: float
    differences: tuple[Difference, ...] = ()


class Judgement(Struct, frozen=True):
    """The strongest verdict, and the nearest experiences: duplicates first, then by similarity, then by id."""

    verdict: Verdict
    neighbours: tuple[Neighbour, ...]


class Duplicate(Struct, frozen=True):
    """A text that says what an experience or an earlier text of the same batch says: one of the two is set."""

    index: int
    experience: str | None = None
    text: int | None = None


class Embedder(Protocol):
    """Makes vectors in place of the word table that tfgrpo ships: an API, MiniLM, …."""

    @property
    def dimensions(self) -> int:
        """The length of its vectors, at most 4,096."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of `dimensions` numbers for each text; only their direction matters.

        Called in the calling thread by `ExperienceLibrary.apply`, `judge` and `PromptAssembler.prior`: what has to
        wait for a network belongs into a thread, with the library.
        """
        ...
