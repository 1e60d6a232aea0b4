"""What an engine is to the bench: a class `Engine` in `bench/engines/<name>.py`.

It runs in a process of its own, with the interpreter of the environment that has its package, on one event loop for
all questions. It imports what it needs lazily, so that every engine's file can be read in any environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Answer(NamedTuple):
    """What came back: the text of the first choice, and the tokens in and out that the usage tells."""

    text: str
    tokens: int


class Engine(Protocol):
    """A client of chat completions. Who can only work on a whole batch has `batch` instead of `call`.

    `loop` names the event loop it is used with: "asyncio" or "uvloop".
    """

    loop: str

    def describe(self) -> str:
        """Package, version, and how it is used."""

    async def open(self, ask: dict[str, Any]) -> None:
        """Made ready for `ask["url"]` with `ask["in_flight"]` calls at once."""

    async def call(self, index: int) -> Answer:
        """One call to its end, retries of the engine's own included."""

    async def close(self) -> None:
        """Gives everything back."""


class Batch(Protocol):
    """Works on a whole batch, without an event loop of the bench."""

    def batch(self, indices: Sequence[int]) -> list[Answer | Exception]:
        """All calls, at most `ask["in_flight"]` at once."""
