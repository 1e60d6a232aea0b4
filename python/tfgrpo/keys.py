"""Typed identity: which phase or arm, step, task and attempt, and what inside the attempt.

A key prints as text and parses back to an equal key; no other file takes such a text apart. The printed form sorts
by step and index and holds printable ASCII only, so it can stand in a file, a header or a log:

    practice/step=0003/task=t17/try=0002//model/9f2c41d0aa17b3c8/0

The part before `//` names the *owner*, here one attempt; the part behind it one thing that the owner did.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any
from urllib.parse import quote, unquote

import msgspec

#: Separates the owner from what it did.
_INSIDE = "//"


class Key(msgspec.Struct, frozen=True, eq=False):
    """The identity of a phase, a step, a group, an attempt, or of something done inside one of them.

    Frozen, hashable, ordered by its text. Build larger ones with `of` and `do`.

    Args:
        phase: "practice", "distill", "gate", "probe", the name of an arm, or a user's own word; never empty.
        step: the number of the practice step, from 1.
        variant: which of several side by side: the library tried at a gate, the candidate of a probe.
        task: the id of the task.
        index: the number of the attempt at the task, from 0.
        inside: what the owner did, from the outside in: ("advantage",) or ("model", digest, "0").
        text: the printed form; it follows from the others, and is never given.

    Raises:
        ValueError: a part is empty, or a number is negative.
    """

    phase: str
    step: int | None = None
    variant: str = ""
    task: str | None = None
    index: int | None = None
    inside: tuple[str, ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        if self.text:
            return
        if (self.step or 0) < 0 or (self.index or 0) < 0:
            raise ValueError(f"no key: step {self.step}, index {self.index}")
        text = _quoted(self.phase)
        if self.step is not None:
            text += f"/step={self.step:04d}"
        if self.variant:
            text += f"/of={_quoted(self.variant)}"
        if self.task is not None:
            text += f"/task={_quoted(self.task)}"
        if self.index is not None:
            text += f"/try={self.index:04d}"
        if self.inside:
            text += _INSIDE + "/".join(map(_quoted, self.inside))
        msgspec.structs.force_setattr(self, "text", text)

    def of(
        self,
        *,
        step: int | None = None,
        variant: str | None = None,
        task: str | None = None,
        index: int | None = None,
    ) -> Key:
        """The same owner, told more closely."""
        return Key(
            self.phase,
            self.step if step is None else step,
            self.variant if variant is None else variant,
            self.task if task is None else task,
            self.index if index is None else index,
            self.inside,
        )

    def do(self, *inside: str) -> Key:
        """Something that the owner did, or a part of what this key names."""
        joint = "/" if self.inside else _INSIDE
        text = self.text + joint + "/".join(map(_quoted, inside))
        return Key(self.phase, self.step, self.variant, self.task, self.index, (*self.inside, *inside), text)

    @property
    def owner(self) -> Key:
        """The attempt, group, step or phase that this is inside of; itself where it is one."""
        if not self.inside:
            return self
        return Key(self.phase, self.step, self.variant, self.task, self.index)

    @property
    def group(self) -> Key:
        """The group that an attempt belongs to: the owner without the index."""
        return Key(self.phase, self.step, self.variant, self.task)

    def seed(self, seed: int) -> int:
        """A sampling seed: 31 bits that follow from the run's seed and this key."""
        return int.from_bytes(hashlib.sha256(f"{seed}\0{self.text}".encode()).digest()[:4], "big") >> 1

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key that prints as this text.

        Raises:
            ValueError: no key prints like this.
        """
        owner, _, inside = text.partition(_INSIDE)
        phase, *parts = owner.split("/")
        named = dict(part.split("=", 1) for part in parts if "=" in part)
        step, index = named.get("step"), named.get("try")
        task = named.get("task")
        key = cls(
            unquote(phase),
            None if step is None else int(step),
            unquote(named.get("of", "")),
            None if task is None else unquote(task),
            None if index is None else int(index),
            tuple(unquote(part) for part in inside.split("/")) if inside else (),
        )
        if key.text != text:
            raise ValueError(f"{text!r} is no key")
        return key

    def __reduce__(self) -> tuple[Any, ...]:
        return Key.parse, (self.text,)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Key({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.text == self.text

    def __lt__(self, other: Key) -> bool:
        return self.text < other.text

    def __hash__(self) -> int:
        return hash(self.text)


def owner_text(text: str) -> str:
    """The text of the owner of what a key's text names, without building the key: for one row among millions."""
    return text.partition(_INSIDE)[0]


def key_of_version_2(kind: str, text: str) -> Key:
    """The key for what a journal of version 2 calls by a text of another form.

    Args:
        kind: the kind of the record; "call" for a call.
        text: its key there: parts joined by "/", ids quoted, numbers of four digits.
    """
    parts = [unquote(part) or "-" for part in text.split("/")]
    try:
        if kind in ("library", "prior"):
            return Key(kind, variant=parts[0])
        if kind == "single requests":
            return Key(kind, variant=parts[0])
        if kind == "evaluation":
            return Key(parts[0])
        if kind in ("group", "step"):
            return Key("practice", int(parts[0]), task=parts[1] if kind == "group" else None)
        return _attempt_of_version_2(parts)
    except (ValueError, IndexError):
        return Key(
            kind or "-", inside=tuple(parts)
        )  # no engine of ours wrote it; it can be read all the same


def _attempt_of_version_2(parts: list[str]) -> Key:
    """The key of an attempt, a group or a call: see `key_of_version_2`."""
    phase, *rest = parts
    match phase:
        case "practice":
            group, rest = Key(phase, int(rest[0]), task=rest[1]), rest[2:]
        case "gate":
            group, rest = Key(phase, int(rest[0]), rest[1], rest[2]), rest[3:]
        case "probe":
            candidate = f"{rest[1]}/{int(rest[2])}"
            group, rest = Key(phase, int(rest[0]), candidate, rest[3]), rest[4:]
        case "distill":
            return Key(phase, int(rest[0]), task=rest[1]).do(*_counted(rest[2:]))
        case "consolidate":
            return Key(phase, int(rest[0])).do(*(_counted(rest[1:]) or ("operations",)))
        case _:
            group, rest = Key(phase, task=rest[0]), rest[1:]
    if not rest:
        return group
    first, joint, count = rest[0].partition("x")
    if joint and count != "1":  # one request for several attempts: the group's
        return group.do("first", rest[0])
    attempt = group.of(index=int(first))
    if joint:
        return attempt.do("model", "1")
    return attempt.do("model", *_counted(rest[1:])) if rest[1:] else attempt


def _counted(parts: list[str]) -> tuple[str, ...]:
    """Parts of a key, numbers without their zeros."""
    return tuple(str(int(part)) if part.isdigit() else part for part in parts)


def _quoted(part: str) -> str:
    return part if part.isascii() and part.isalnum() else _quote(part)


@functools.lru_cache(maxsize=4096)
def _quote(part: str) -> str:
    if not part:
        raise ValueError("no key: an empty part")
    return quote(part, safe="")
