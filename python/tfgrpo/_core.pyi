"""The Rust core: the experience library algebra, token counts, prior packing and admission.

Everything here is deterministic and does no I/O. `tfgrpo.library` and `tfgrpo.engine.admission` are the
facades to use; they speak in the types of `tfgrpo.types` where this module takes and gives JSON bytes.
"""

from typing import final

__all__ = ["Admission", "CoreError", "Library", "count_tokens"]

class CoreError(ValueError):
    """An argument that the Rust core refuses; the text says why and what to do."""

def count_tokens(text: str) -> int:
    """The number of o200k tokens in `text`: the reference count for every budget of tfgrpo.

    Raises:
        UnicodeEncodeError: `text` holds a lone surrogate.
    """

@final
class Library:
    """An immutable experience library. `Library()` is the empty one, version 0."""

    def __new__(cls) -> Library: ...
    @staticmethod
    def from_json(data: bytes) -> Library:
        """Reads a library file and verifies its digest.

        Raises:
            CoreError: the bytes are no library, are of another format version, or do not match their digest.
        """
    def to_json(self) -> bytes:
        """The library file: indented JSON, UTF-8, with a newline at the end."""
    def entries_json(self) -> bytes:
        """The living experiences, in id order, as a JSON array of `Experience`."""
    def apply(self, operations: bytes) -> tuple[Library, bytes]:
        """Applies a JSON array of `Operation`; returns the next library and the `ApplyReport` as JSON.

        Raises:
            CoreError: the bytes are no operations. An operation that cannot be applied is no error: the
                report has it, with the reason.
        """
    def with_credit(self, credit: dict[str, float]) -> Library:
        """The same library, version and digest with new credits for the experiences named.

        Raises:
            CoreError: an id is not in the library, or a credit is not finite.
        """
    def prior(self, heading: str, token_budget: int) -> tuple[str, list[str], int, str]:
        """Packs the library under a hard budget; returns text, chosen ids, tokens, and digest of the bytes.

        Raises:
            UnicodeEncodeError: `heading` holds a lone surrogate.
            OverflowError: `token_budget` is negative.
        """
    @property
    def version(self) -> int:
        """The number of changes since the empty library."""
    @property
    def next_id(self) -> int:
        """The number of the next new experience."""
    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that the library says: not of credits and token counts."""
    def __len__(self) -> int: ...

@final
class Admission:
    """Admission of calls under concurrency and rates. Sans-IO: `now` is seconds on any clock that only rises.

    Raises:
        CoreError: a limit is 0.
    """

    def __new__(
        cls,
        *,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> Admission: ...
    def submit(self, priority: int, tokens: int, now: float) -> int:
        """Queues a call of about `tokens` and returns its ticket; a lower priority number goes first."""
    def poll(self, now: float) -> tuple[list[int], float | None]:
        """The tickets granted now, in order, and when to poll again even if nothing is released."""
    def release(self, ticket: int, now: float, tokens: int | None = None) -> None:
        """Gives a place back and settles to the tokens used (None: as many as were asked for).

        Raises:
            CoreError: the ticket is not in flight.
        """
    def release_rate_limited(self, ticket: int, now: float, retry_after: float | None = None) -> None:
        """Gives a place back after a 429 and pauses all grants: `retry_after` seconds, or a growing time.

        Raises:
            CoreError: the ticket is not in flight.
        """
    def cancel(self, ticket: int) -> None:
        """Takes a waiting call out of the queue.

        Raises:
            CoreError: the ticket is not waiting.
        """
    def snapshot(self, now: float) -> tuple[int, int, float | None, str]:
        """In flight, waiting, end of the pause after a 429, and what the head of the queue waits for.

        The last is one of "none", "paused", "concurrency", "requests", "tokens".
        """
