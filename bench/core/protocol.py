"""What an engine is to the bench: a class `Engine` with some of these methods, in `engines/<name>.py`.

An engine runs in a process of its own, with the project's interpreter or with that of the rivals, and takes part
in a definition if the definition names it. It imports what it needs lazily, so that every engine file can be read
in either environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 256
NEAR = 10
DUPLICATE = -1

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]


class Near(NamedTuple):
    """The entries nearest to a text, best first, at most `NEAR`; and a verdict, where the engine gives one."""

    ids: list[int]
    duplicate: bool | None = None


class Prompt(NamedTuple):
    """The part of a prompt that was learned (the question, too, is put behind it, but left out here), what its engine
    counted, and the entries in it.
    """

    text: str
    tokens: int
    ids: list[int]


class Engine(Protocol):
    """All that an engine may be asked. Made anew for each round: `Engine()` is empty."""

    def describe(self) -> str:
        """Package, version and parameters, for the record."""

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        """Adds texts, whose ids count from `first`. `vectors` are their embeddings, for who cannot embed."""

    def near(self, text: str, vector: Vector) -> Near:
        """Is this text new, and which entries are near?"""

    def deduplicate(self, texts: list[str]) -> list[int]:
        """For each text: its own index if it stays, the index it is a duplicate of, or `DUPLICATE`."""

    def prompt(self, question: str, vector: Vector, budget: int) -> Prompt:
        """A prompt of at most `budget` tokens with what is relevant to the question, from what was inserted."""

    def recount(self, text: str) -> int:
        """The tokens of a whole text, by the engine's tokenizer: must be what `prompt` added up."""

    def __len__(self) -> int:
        """How many entries it keeps."""

    def scan(self, vector: Vector) -> list[int]:
        """The ids of the nearest by an exact scan of all int8 vectors."""

    def prepare_scan(self, vectors: Vectors) -> None:
        """Takes the vectors that `scan` reads."""

    def twin(self, name: str, data: dict[str, Any]) -> Callable[[], Any]:
        """One module's work on a batch, prepared; what it returns is compared with the other side's, as JSON.

        Raises:
            NotImplementedError: the engine does not have the module by itself.
        """
