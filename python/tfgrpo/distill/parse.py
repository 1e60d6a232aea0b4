"""What the distiller's replies may look like, and the only place that knows their aliases.

Small models write "[E1]" for E1, UPDATE for MODIFY, one object where a list was asked for. All of that is
read here; what cannot be read is an error with a reason, never a silent loss.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tfgrpo.errors import DistillError
from tfgrpo.types import DroppedOperation, Operation, OperationKind

ALIASES = {
    "ADD": OperationKind.ADD,
    "NEW": OperationKind.ADD,
    "CREATE": OperationKind.ADD,
    "INSERT": OperationKind.ADD,
    "MERGE": OperationKind.ADD,
    "MODIFY": OperationKind.MODIFY,
    "UPDATE": OperationKind.MODIFY,
    "EDIT": OperationKind.MODIFY,
    "REPLACE": OperationKind.MODIFY,
    "DELETE": OperationKind.DELETE,
    "REMOVE": OperationKind.DELETE,
    "DROP": OperationKind.DELETE,
    "KEEP": OperationKind.KEEP,
    "NONE": OperationKind.KEEP,
    "NOOP": OperationKind.KEEP,
}

_ID = re.compile(r"[\[(\"'\s]*[EeGg]?(\d{1,9})[\])\"'.:\s]*\Z")


def experience_text(when: str, do: str) -> str:
    """Join a situation and a strategy: "When <situation>, <strategy>." (METHOD)."""
    when = re.sub(r"\A(when|if)\b[\s,:]*", "", _line(when), flags=re.IGNORECASE).rstrip(".,;: ")
    do = re.sub(r"\A(then)\b[\s,:]*", "", _line(do), flags=re.IGNORECASE).rstrip(".,;: ")
    do = do.replace(", ", "; ")  # the last comma of an experience stands before its strategy
    if not when:
        return f"{do[:1].upper()}{do[1:]}." if do else ""
    return f"When {when}, {do}." if do else ""


def split_experience(text: str) -> tuple[str, str]:
    """Situation and strategy of an experience; the situation is empty where the text names none."""
    situation, comma, strategy = text.rpartition(", ")
    return (situation, strategy) if comma else ("", text)


def read_lesson(value: Any, words: int) -> str:
    """The experience that a decoded lesson states.

    Raises:
        DistillError: no object with `when` and `do`, an empty strategy, or more than `words` words.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and isinstance(value.get("lesson"), dict):
        value = value["lesson"]
    if not isinstance(value, dict):
        raise DistillError('expected one JSON object with the keys "when" and "do"')
    text = experience_text(_text(value, "when"), _text(value, "do"))
    if not text:
        raise DistillError('"do" is empty; say what to do')
    if placeholder := re.search(r"<[a-z ]+>", text):
        raise DistillError(f"the lesson still says {placeholder[0]}; put the real thing there")
    check_length(text, words)
    return text


def check_length(text: str, words: int) -> None:
    """An experience is short.

    Raises:
        DistillError: it has more than `words` words.
    """
    if (count := len(text.split())) > words:
        raise DistillError(f"the lesson has {count} words; at most {words} are allowed")


def read_operations(
    value: Any, *, base_version: int, source: str, sources: tuple[str, ...], words: int
) -> tuple[tuple[Operation, ...], tuple[DroppedOperation, ...]]:
    """Operations from a decoded reply: a list, an object holding one, or a single operation.

    Returns:
        The readable operations, numbered in the order of the reply, and the unreadable ones with reasons.

    Raises:
        DistillError: nothing in the reply looks like an operation.
    """
    if isinstance(value, dict):
        value = value.get("operations", [value] if "operation" in value else None)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DistillError('expected a JSON object with a list "operations"')
    operations: list[Operation] = []
    dropped: list[DroppedOperation] = []
    for item in value:
        index = len(operations) + len(dropped)
        blank = Operation(
            OperationKind.KEEP, base_version=base_version, source=source, index=index, sources=sources
        )
        try:
            operations.append(_operation(item, blank, words))
        except DistillError as error:
            unread = msgspec.structs.replace(blank, text=str(item)[:200])
            dropped.append(DroppedOperation(unread, f"unreadable: {error.message}"))
    return tuple(operations), tuple(dropped)


def read_id(value: Any) -> str | None:
    """An id however it is displayed: "E3", "[E3]", "e3.", 3; None for nothing."""
    if value is None or value == "" or isinstance(value, bool):
        return None
    match = _ID.match(str(value))
    return f"E{int(match[1])}" if match else str(value)


def _operation(item: Any, blank: Operation, words: int) -> Operation:
    if not isinstance(item, dict):
        raise DistillError("an operation is a JSON object")
    lowered = {str(key).lower(): entry for key, entry in item.items()}
    name = str(lowered.get("operation", lowered.get("op", ""))).strip().upper()
    if name not in ALIASES:
        raise DistillError(f"unknown operation {name or '(none)'!s}; use ADD, MODIFY, DELETE or KEEP")
    kind = ALIASES[name]
    target = read_id(lowered.get("id", lowered.get("target")))
    merged = lowered.get("merges", lowered.get("ids", lowered.get("parents"))) or []
    parents = [read_id(entry) for entry in (merged if isinstance(merged, list) else [merged])]
    text = _text(lowered, "text") or experience_text(_text(lowered, "when"), _text(lowered, "do"))
    if kind in (OperationKind.ADD, OperationKind.MODIFY):
        check_length(text, words)
        if not text:
            raise DistillError(f"{name} needs a text")
    if kind is OperationKind.ADD:
        return msgspec.structs.replace(
            blank, kind=kind, text=text, parents=tuple(p for p in parents if p is not None)
        )
    return msgspec.structs.replace(
        blank, kind=kind, target=target, text=text if kind is OperationKind.MODIFY else ""
    )


def _text(value: dict[str, Any], key: str) -> str:
    entry = value.get(key)
    return _line(entry) if isinstance(entry, str) else ""


def _line(text: str) -> str:
    return " ".join(text.split())
