"""The Rust core: the experience library algebra, similarity, token counts, the prior, and admission.

Everything here is deterministic and does no I/O. `tfgrpo.library` and `tfgrpo.engine.admission` are the
facades to use; they speak in the types of `tfgrpo.types` where this module takes and gives JSON bytes.
"""

from collections.abc import Sequence
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

__all__ = [
    "Admission",
    "CoreError",
    "InvariantError",
    "Library",
    "count_tokens",
    "embed",
    "tokenizer_for_model",
]

_Floats: TypeAlias = npt.NDArray[np.float32]

class CoreError(ValueError):
    """An argument that the Rust core refuses; the text says why and what to do."""

class InvariantError(RuntimeError):
    """The Rust core broke a rule of its own: a bug, whatever it was given."""

def count_tokens(text: str, tokenizer: str = "o200k") -> int:
    """The number of tokens in `text`; o200k is the reference in which budgets are stated.

    Args:
        text: any Unicode text; special tokens count as the plain text they are.
        tokenizer: "o200k" or "cl100k".

    Raises:
        UnicodeEncodeError: `text` holds a lone surrogate.
        CoreError: there is no such tokenizer.
    """

def embed(data: bytes, offsets: npt.NDArray[np.uint64]) -> bytes:
    """The vectors of texts by the word table that is shipped: float32, 256 numbers a text, of length 1 or 0.

    Args:
        data: the texts in UTF-8, one after another.
        offsets: uint64, where each text begins, and the end of the last.

    Raises:
        CoreError: the offsets do not fit the data.
    """

def tokenizer_for_model(model: str) -> str:
    """The tokenizer of a model by its provider's name for it; where it is not bundled o200k, as an estimate."""

@final
class Library:
    """An immutable experience library. `Library()` is the empty one, version 0."""

    def __new__(cls) -> Library: ...
    @staticmethod
    def from_json(data: bytes, index: Buffer | None = None) -> Library:
        """Reads a library file and verifies its digest.

        Args:
            data: the file.
            index: what `to_index` gave, read-only; it is read in place and kept. One of another library is passed
                over.

        Raises:
            CoreError: the bytes are no library, are of another format version, or do not match their digest; or
                the index is damaged.
        """
    def to_json(self) -> bytes:
        """The library file: indented JSON, UTF-8, with a newline at the end."""
    def to_index(self) -> bytes:
        """The index file: what is derived from the texts, checksummed, each column at a multiple of 64 bytes."""
    def entries_json(self) -> bytes:
        """The living experiences, in id order, as a JSON array of `Experience`."""
    def entry_json(self, id: str) -> bytes | None:
        """The living experience of this name, its id or its number alone ("E7"), as JSON; None if there is none."""
    def id_of(self, name: str) -> str | None:
        """The id of the living experience of this name, its id or its number alone; None if there is none."""
    def apply(self, operations: bytes, vectors: _Floats | None = None) -> tuple[Library, bytes]:
        """Applies a JSON array of `Operation`; returns the next library and the `ApplyReport` as JSON.

        Args:
            operations: the operations.
            vectors: float32, one row of `dimensions` an operation, for a library with vectors from elsewhere.

        Raises:
            CoreError: the bytes are no operations. An operation that cannot be applied is no error: the
                report has it, with the reason.
        """
    def with_credit(self, credit: dict[str, float]) -> Library:
        """The same library, version and digest with new credits for the experiences named.

        Raises:
            CoreError: an id is not in the library, or a credit is not finite.
        """
    def with_tokenizer(self, tokenizer: str) -> Library:
        """The same library, version and digest, counted by another tokenizer.

        Raises:
            CoreError: there is no such tokenizer.
        """
    def with_vectors(self, vectors: _Floats, dimensions: int) -> Library:
        """The same library, version and digest with these vectors: float32, one row an experience, in id order.

        Raises:
            CoreError: rows are missing or left over, or `dimensions` is not from 1 to 4,096.
        """
    def judge(self, text: str, k: int, vector: _Floats | None = None) -> bytes:
        """What a text is to the library, and its `k` nearest experiences, as the JSON of a `Judgement`."""
    def deduplicate(self, data: bytes, offsets: npt.NDArray[np.uint64]) -> tuple[bytes, bytes]:
        """What each text duplicates.

        Args:
            data: the texts in UTF-8, one after another.
            offsets: uint64, where each text begins, and the end of the last.

        Returns:
            int64 a text: the earlier text it duplicates, or -1; uint64 a text: the number of the experience it
            duplicates, or 0.

        Raises:
            CoreError: the offsets do not fit the data.
        """
    def relevant(self, questions: Sequence[str], each: int, vectors: _Floats | None = None) -> list[str]:
        """The ids of the experiences nearest to any question, the most relevant first, `each` a question."""
    def prior(
        self,
        heading: str,
        token_budget: int,
        questions: Sequence[str] = ...,
        each: int = 0,
        vectors: _Floats | None = None,
    ) -> tuple[str, list[str], int, str, tuple[int, int]]:
        """Renders the library under a hard budget.

        Returns:
            Text, ids of the living experiences in it, tokens, digest of the bytes, and character and token at which the
            part begins that was chosen for the questions.

        Raises:
            UnicodeEncodeError: `heading` or a question holds a lone surrogate.
            OverflowError: a number is negative.
        """
    @property
    def version(self) -> int:
        """The number of changes since the empty library."""
    @property
    def next_id(self) -> int:
        """The number of the next new experience."""
    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that the library says: not of credits, token counts and vectors."""
    @property
    def tokenizer(self) -> str:
        """What its tokens are counted by."""
    @property
    def dimensions(self) -> int:
        """The length of its vectors."""
    def __len__(self) -> int: ...

@final
class Admission:
    """Admission of calls to one provider. Sans-IO: `now` is seconds on any clock that only rises.

    Raises:
        CoreError: a limit is 0.
    """

    def __new__(
        cls,
        *,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        input_tokens_per_minute: int | None = None,
        output_tokens_per_minute: int | None = None,
    ) -> Admission: ...
    def submit(self, priority: int, run: int, input: int, output: int, now: float) -> int:
        """Queues a call of a run, of about so many tokens in and out, and returns its ticket.

        A lower priority number goes first; runs of equal priority take turns.
        """
    def poll(self, now: float, most: int) -> tuple[list[int], float | None]:
        """The tickets granted now, in order, at most so many, and when to poll again even if nothing is released."""
    def sent(self, ticket: int, now: float) -> None:
        """The call leaves now.

        Raises:
            CoreError: the ticket is not in flight.
        """
    def read(
        self,
        ticket: int,
        readings: list[tuple[int, float | None, float | None, float | None, float | None]],
        refused_call: bool,
        now: float,
    ) -> None:
        """What the head of a response said of limits; `refused_call`: it is a 429.

        A reading is (kind, limit, remaining, seconds until the whole is there again, seconds that the whole is for);
        kinds are 0 requests, 1 tokens, 2 tokens in, 3 tokens out.

        Raises:
            CoreError: the ticket is not in flight.
        """
    def done(self, ticket: int, now: float, used: tuple[int, int] | None = None) -> None:
        """Gives a place back and settles to the tokens used, in and out (None: as many as were expected).

        Raises:
            CoreError: the ticket is not in flight.
        """
    def rate_limited(self, ticket: int, now: float, retry_after: float | None = None) -> None:
        """Gives a place back after a 429 and pauses all grants: `retry_after` seconds, or as long as is needed.

        Raises:
            CoreError: the ticket is not in flight.
        """
    def overloaded(self, ticket: int, now: float, retry_after: float | None = None) -> None:
        """Gives a place back after a 503 or 529: nothing grows for a while; pauses if it says how long.

        Raises:
            CoreError: the ticket is not in flight.
        """
    def timed_out(self, ticket: int, now: float) -> None:
        """Gives a place back after no answer came in time.

        Raises:
            CoreError: the ticket is not in flight.
        """
    def failed(self, ticket: int, now: float) -> None:
        """Gives a place back; nothing was used.

        Raises:
            CoreError: the ticket is not in flight.
        """
    def cancel(self, ticket: int) -> None:
        """Takes a waiting call out of the queue.

        Raises:
            CoreError: the ticket is not waiting.
        """
    def snapshot(
        self, now: float
    ) -> tuple[int, int, float | None, str, int | None, float | None, float, int]:
        """The state now.

        In flight, waiting, end of the pause after a 429, what the head of the queue waits for, the places there are,
        calls a second permitted, calls a second sent over the last ten seconds, 429s so far.

        The fourth is one of "none", "provider cut", "concurrency", "requests", "tokens", "input tokens",
        "output tokens", "ramp", "hidden limit".
        """
