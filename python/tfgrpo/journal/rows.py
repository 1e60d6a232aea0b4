"""What the rows of the file hold, and the seal that tells a damaged row from a sound one.

The file is a log: each event of the run is a row of `log` (its head: what is small) and a row of `bodies` with
the same number (its body: what can be large). Messages that are worth sharing are rows of `blobs`. Every
stored value ends in a CRC-32 that also covers the kind of its table and the number of its row, so a flipped
bit anywhere, or a value in the wrong place, is noticed when it is read.
"""

from __future__ import annotations

import enum
import zlib
from typing import Any

import msgspec
import zstandard

from tfgrpo.types import EffectKind, EffectStatus, Fault, Role


class Table(enum.IntEnum):
    """The tables; the number is part of each seal. A file can hold no more than 2^30 rows a table."""

    LOG = 0
    BODIES = 1
    BLOBS = 2


class _Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a row of `log` holds, as a MessagePack array."""


class Header(_Head, frozen=True, array_like=True, tag="h", gc=False):
    """The first row: what the run was created with, as JSON in its body."""


class Intent(_Head, frozen=True, array_like=True, tag="i", gc=False):
    """An attempt is about to be made; the body is its request, folded. Outcomes name it by its row number.

    Version 2 of the file has no `kind`: all its effects are model calls.
    """

    key: str
    attempt: int
    role: Role
    digest: bytes
    at: float
    kind: EffectKind = EffectKind.MODEL


class Outcome(_Head, frozen=True, array_like=True, tag="o", gc=False):
    """An attempt has ended; the body is its result, empty when it failed. `call` is the row of the intent."""

    call: int
    role: Role
    status: EffectStatus
    at: float
    maybe_paid: bool
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float
    fault: Fault | None = None


class Record(_Head, frozen=True, array_like=True, tag="r", gc=False):
    """A terminal record; the body is its value, folded. `ends` is the owner that it closes, "" for its own key."""

    kind: str
    key: str
    digest: bytes
    ends: str = ""

    @property
    def closes(self) -> str:
        """The owner whose effects nobody asks for again."""
        return self.ends or self.key


Head = Header | Intent | Outcome | Record

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode

#: A body of fewer bytes is stored as it is: a frame would save less than it costs.
_WORTH_COMPRESSING = 1_000

#: The first bytes of a zstd frame. No JSON text starts like this.
_FRAME = b"\x28\xb5\x2f\xfd"

#: SQLite's own limit for one value; a frame that claims more is damaged.
_LARGEST = 1_000_000_000


# An odd number: different rows start their check sums differently, and far apart, so that a handful of bytes that
# happen to look like a short row do not look sealed too.
_SPREAD = 0x9E3779B1
_LOG_SPREAD = _SPREAD * 4


def check_sum(table: Table, row: int, payload: bytes) -> bytes:
    """What a payload is sealed with: four bytes."""
    return zlib.crc32(payload, (row * 4 + table) * _SPREAD).to_bytes(4, "little")


def seal(table: Table, row: int, payload: bytes) -> bytes:
    """A stored value: the payload and its check sum."""
    return payload + check_sum(table, row, payload)


def unseal(table: Table, row: int, value: bytes) -> bytes:
    """The payload of a stored value.

    Raises:
        ValueError: it is damaged; a flipped bit can also make a NULL or a text of it.
    """
    if type(value) is not bytes:
        raise ValueError(f"row {row} of {table.name.lower()} holds no bytes")
    payload = value[:-4]
    if check_sum(table, row, payload) != value[-4:]:
        raise ValueError(f"row {row} of {table.name.lower()} does not match its check sum")
    return payload


def encode_head(row: int, head: Head) -> bytes:
    """A value of `log`.

    Raises:
        ValueError: a text in it has no encoding (a lone surrogate).
    """
    payload = _encode(head)
    return payload + zlib.crc32(payload, row * _LOG_SPREAD).to_bytes(4, "little")


def decode_head(row: int, value: bytes) -> Any:
    """The head that a value of `log` holds.

    Raises:
        ValueError: it is damaged.
    """
    # `unseal`, written out: opening a long run does this for every row.
    if type(value) is not bytes:
        raise ValueError(f"row {row} of log holds no bytes")
    payload = value[:-4]
    if zlib.crc32(payload, row * _LOG_SPREAD) != int.from_bytes(value[-4:], "little"):
        raise ValueError(f"row {row} of log does not match its check sum")
    return _decode(payload)


class Packer:
    """Compresses and seals bodies. A zstd context is not safe for two threads at once: one packer a thread."""

    def __init__(self) -> None:
        # Level 1: level 3 takes twice the time on our texts and saves 1 % of the space.
        self._compressor = zstandard.ZstdCompressor(level=1, write_checksum=False)

    def pack(self, table: Table, rows: list[tuple[int, bytes]]) -> list[Any]:
        """Row numbers and sealed values in turn; the interpreter lock is given up once for all large ones."""
        large: list[Any] = [body for _, body in rows if len(body) >= _WORTH_COMPRESSING]
        frames = iter(self._compressor.multi_compress_to_buffer(large) if large else ())
        packed: list[Any] = []
        add, crc = packed.append, zlib.crc32
        for row, body in rows:
            payload = next(frames).tobytes() if len(body) >= _WORTH_COMPRESSING else body
            add(row)
            add(payload + crc(payload, (row * 4 + table) * _SPREAD).to_bytes(4, "little"))
        return packed


class Unpacker:
    """Verifies and decompresses bodies; one unpacker a thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def unpack(self, table: Table, row: int, value: bytes) -> bytes:
        """The body that a stored value holds.

        Raises:
            ValueError: it is damaged.
        """
        payload = unseal(table, row, value)
        if payload[:4] != _FRAME:
            return payload
        try:
            # A size that is not true must not become an allocation of that size.
            if not 0 <= zstandard.frame_content_size(payload) <= _LARGEST:
                raise ValueError(f"row {row} of {table.name.lower()} claims an impossible size")
            return self._decompressor.decompress(payload)
        except zstandard.ZstdError as error:
            raise ValueError(f"row {row} of {table.name.lower()} does not decompress: {error}") from error
