"""Canonical bytes: one value has one encoding and one digest, and each large message in it is stored once.

A value is *folded*: every `Message` in it, however deep, is replaced by a stand-in. For the digest the
stand-in is the hash of the message's own encoding, so a digest covers the messages through their hashes. For
storing it is the number of the row that holds the message, or the message itself where that is shorter.
"""

from __future__ import annotations

import functools
import hashlib
import typing
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from tfgrpo.errors import JournalError
from tfgrpo.types import Message

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S", bound=msgspec.Struct)

# "sorted" also sorts the fields of structs: moving a field in types.py must not change a digest.
_encoder = msgspec.json.Encoder(order="sorted")

#: The role of a message that stands for another one. A real message of this role is never stored inline.
REFERENCE = "@"


class Recent(Generic[K, V]):
    """A bounded map that forgets what was not asked for lately: two generations, no book-keeping on a hit.

    Args:
        limit: the weight of one generation; at most twice as much is kept.
    """

    __slots__ = ("_limit", "_new", "_old", "_weight")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0
        self._new: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}

    def get(self, key: K) -> V | None:
        """The value of a key, or None."""
        found = self._new.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, *found)
        return found[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Remember a value."""
        if self._weight + weight > self._limit:
            self._old, self._new, self._weight = self._new, {}, 0
        self._new[key] = value, weight
        self._weight += weight


# The hashes of messages seen lately, by value: calls that share a prompt hash and encode it once. A million characters
# a generation: the prompts that are in use, and not those of the whole run.
_references: Recent[Message, Message] = Recent(1_000_000)


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


def reference(message: Message) -> Message:
    """What stands for a message in a digest: a message that holds its hash in hex.

    Raises:
        JournalError: the message has no JSON encoding.
    """
    try:
        found = _references.get(message)
    except TypeError:  # a message of the wrong types has no hash; it may still have an encoding
        return Message(REFERENCE, hashlib.sha256(encode(message)).hexdigest())
    if found is None:
        data = encode(message)
        found = Message(REFERENCE, hashlib.sha256(data).hexdigest())
        _references.put(message, found, len(data) + 200)
    return found


def fold(value: msgspec.Struct, change: Callable[[Message], Message] = reference) -> bytes:
    """Encode a value with each of its messages replaced; by the hashes of their contents unless told.

    Raises:
        JournalError: the value has no JSON encoding.
    """
    return encode(_map_messages(value, change))


def unfold(body: bytes, type_: type[S], load: Callable[[str], Message]) -> S:
    """Decode a folded value; `load` returns the message for what a reference holds.

    Raises:
        ValueError: the body does not decode as `type_` (msgspec's errors are ValueErrors too).
    """

    def change(message: Message) -> Message:
        return load(message.content) if message.role == REFERENCE else message

    value: S = _map_messages(msgspec.json.decode(body, type=type_), change)
    return value


def digest_of(value: msgspec.Struct) -> bytes:
    """The canonical hash of a request: what a resumed run compares its requests by.

    Stable for ever: it does not depend on the order of dict keys or struct fields, and a field added to a type
    later leaves it unchanged as long as it has its default value.

    Raises:
        JournalError: the value has no JSON encoding.
    """
    return hashlib.sha256(fold(value)).digest()


def _map_messages(value: Any, change: Callable[[Message], Message]) -> Any:
    """The same value with `change` applied to every message in its structs, tuples, lists and dicts."""
    if isinstance(value, Message):
        return change(value)
    if isinstance(value, msgspec.Struct):
        flat, deep = _carriers(type(value))
        if not flat and not deep:
            return value
        changed: dict[str, Any] = {name: tuple(map(change, getattr(value, name))) for name in flat}
        for name in deep:
            changed[name] = _map_messages(getattr(value, name), change)
        return msgspec.structs.replace(value, **changed)
    if isinstance(value, (tuple, list)):
        return type(value)([_map_messages(item, change) for item in value])
    if isinstance(value, dict):
        return {name: _map_messages(item, change) for name, item in value.items()}
    return value


@functools.cache
def _carriers(struct: type[msgspec.Struct]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of a struct type that can hold messages: those that are tuples of messages, and others."""
    fields = [field for field in msgspec.structs.fields(struct) if _carries(field.type)]
    flat = [field.name for field in fields if field.type == tuple[Message, ...]]
    return tuple(flat), tuple(field.name for field in fields if field.name not in flat)


def _carries(hint: Any) -> bool:
    if hint is Message:
        return True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return any(_carriers(hint))
    return any(_carries(part) for part in typing.get_args(hint))
