"""How the writing side stores messages: large ones once, in a row of their own; small ones where they stand."""

from __future__ import annotations

import msgspec

from tfgrpo.journal.codec import REFERENCE, Recent, encode, fold, reference
from tfgrpo.types import Message

#: A message with fewer bytes is stored inline: a row of its own costs more than the repetition.
_WORTH_A_ROW = 250

#: How many stored messages are remembered, twice this at most; and how many requests.
_REMEMBERED, _REQUESTS = 4_000, 16


class BlobStore:
    """Gives messages their rows in `blobs`.

    What was not seen for a long time, or was stored by an earlier engine, is stored again: that costs space
    once, where looking it up in the file would cost time in every call.

    Args:
        last_row: the number of the last row of `blobs`.
    """

    def __init__(self, last_row: int) -> None:
        self._last_row = last_row
        self._rows: Recent[str, Message] = Recent(_REMEMBERED)
        self._new: list[tuple[int, bytes]] = []
        self._requests: dict[bytes, tuple[msgspec.Struct, bytes]] = {}

    def store_request(self, value: msgspec.Struct, digest: bytes) -> bytes:
        """The same for a request: those of a group are equal, come one after the other, and are folded once."""
        known = self._requests.get(digest)
        if known is not None and known[0] == value:
            return known[1]
        body = self.store(value)
        if len(self._requests) >= _REQUESTS:
            self._requests.clear()
        self._requests[digest] = value, body
        return body

    def store(self, value: msgspec.Struct) -> bytes:
        """A value as it is stored. The rows of `blobs` that have to be written with it are collected for `take`.

        Raises:
            JournalError: the value has no JSON encoding. Rows collected so far stay: later values may refer to them.
        """
        return fold(value, self._stand_in)

    def take(self) -> list[tuple[int, bytes]] | None:
        """The rows collected since the last time: they have to be written, whatever else is."""
        if not self._new:
            return None
        new, self._new = self._new, []
        return new

    def _stand_in(self, message: Message) -> Message:
        # The quick half of the question: text is at least as long in bytes as in characters.
        small = len(message.content) < _WORTH_A_ROW
        if small and not message.tool_calls and message.role != REFERENCE and message.content.isascii():
            return message
        key = reference(message).content
        known = self._rows.get(key)
        if known is not None:
            return known
        data = encode(message)
        if len(data) < _WORTH_A_ROW and message.role != REFERENCE:
            return message
        self._last_row += 1
        self._new.append((self._last_row, data))
        known = Message(REFERENCE, str(self._last_row))
        self._rows.put(key, known)
        return known
