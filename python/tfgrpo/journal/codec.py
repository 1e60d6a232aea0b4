"""Canonical bytes: one value has one encoding, one digest, and each message in it is stored once.

A value is *folded* before it is stored: every `Message` in it, however deep, is replaced by a reference to
the hash of its own encoding. What repeats between rollouts and requests (the system prompt, the prior, the
earlier turns) is then a reference of some 50 bytes. The digest of a request is the hash of its folded
encoding, so it covers the messages through their hashes.
"""

from __future__ import annotations

import functools
import hashlib
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
import zstandard

from tfgrpo.errors import JournalError
from tfgrpo.types import Message, ModelRequest

S = TypeVar("S", bound=msgspec.Struct)

# "sorted" also sorts the fields of structs: moving a field in types.py must not change a digest.
_encoder = msgspec.json.Encoder(order="sorted")

#: The role of a message that stands for another one. No real message is stored inline, so it cannot clash.
_REFERENCE = "@"

#: SQLite's own limit for one value; a frame that claims more is damaged.
_LARGEST = 1_000_000_000


class Folded(NamedTuple):
    """A value as stored: its encoding without messages, and the encoding of each message by hash."""

    body: bytes
    messages: dict[bytes, bytes]


def encode(value: object) -> bytes:
    """Encode a value as canonical JSON.

    Raises:
        JournalError: the value has no JSON encoding (a lone surrogate, a foreign object, nested too deep).
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        name = type(value).__name__
        raise JournalError(
            f"A value of type {name} cannot be journaled: {error}. Only values with a JSON encoding can be "
            "kept; clean the text or the metadata where it enters the run."
        ) from error


def content_hash(data: bytes) -> bytes:
    """The SHA-256 of stored content: 32 bytes."""
    return hashlib.sha256(data).digest()


def fold(value: msgspec.Struct) -> Folded:
    """Encode a value with each of its messages replaced by a reference.

    Raises:
        JournalError: the value has no JSON encoding.
    """
    messages: dict[bytes, bytes] = {}

    def refer(message: Message) -> Message:
        data = encode(message)
        key = content_hash(data)
        messages[key] = data
        return Message(_REFERENCE, key.hex())

    return Folded(encode(_map_messages(value, refer)), messages)


def unfold(body: bytes, type_: type[S], load: Callable[[bytes], Message]) -> S:
    """Decode a folded value; `load` returns the message of a hash.

    Raises:
        ValueError: the body does not decode as `type_` (msgspec's errors are ValueErrors too).
    """
    value: S = _map_messages(
        msgspec.json.decode(body, type=type_), lambda reference: load(bytes.fromhex(reference.content))
    )
    return value


def request_digest(request: ModelRequest) -> str:
    """The canonical hash of a request, in hex: what a resumed run compares its requests by.

    Stable for ever: it does not depend on the order of dict keys or struct fields, and a field added to
    `ModelRequest` later leaves it unchanged as long as it has its default value.

    Raises:
        JournalError: the request has no JSON encoding.
    """
    return content_hash(fold(request).body).hex()


def _map_messages(value: Any, change: Callable[[Message], Message]) -> Any:
    """The same value with `change` applied to every message in its structs, tuples, lists and dicts."""
    if isinstance(value, Message):
        return change(value)
    if isinstance(value, msgspec.Struct):
        names = _carriers(type(value))
        if not names:
            return value
        changed = {name: _map_messages(getattr(value, name), change) for name in names}
        return msgspec.structs.replace(value, **changed)
    if isinstance(value, tuple | list):
        return type(value)(_map_messages(item, change) for item in value)
    if isinstance(value, dict):
        return {name: _map_messages(item, change) for name, item in value.items()}
    return value


@functools.cache
def _carriers(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of a struct type whose annotation can hold messages: only those are walked."""
    return tuple(field.name for field in msgspec.structs.fields(struct) if _carries(field.type))


def _carries(hint: Any) -> bool:
    if hint is Message:
        return True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return bool(_carriers(hint))
    return any(_carries(part) for part in typing.get_args(hint))


class Packer:
    """Compresses bodies. A zstd context is not safe for two threads at once: one packer a thread."""

    def __init__(self) -> None:
        # The checksum is what notices a flipped bit: SQLite has none of its own.
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)

    def pack(self, bodies: list[bytes]) -> list[bytes]:
        """Compress bodies, none of them empty, giving up the interpreter lock once for all of them."""
        if not bodies:
            return []
        frames = self._compressor.multi_compress_to_buffer([*bodies])
        return [frames[index].tobytes() for index in range(len(frames))]


class Unpacker:
    """Decompresses bodies and verifies their checksums; one unpacker a thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def unpack(self, frame: bytes) -> bytes:
        """Decompress one body.

        Raises:
            ValueError: the frame is damaged.
        """
        try:
            # A flipped bit in the size must not become an allocation of that size.
            if not 0 <= zstandard.frame_content_size(frame) <= _LARGEST:
                raise ValueError("a compressed body claims an impossible size")
            return self._decompressor.decompress(frame)
        except zstandard.ZstdError as error:
            raise ValueError(f"a compressed body is damaged: {error}") from error
