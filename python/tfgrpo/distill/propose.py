"""Operations for one semantic advantage, the library in view (METHOD step 5)."""

from __future__ import annotations

from typing import Any, Literal

from tfgrpo.distill.ask import Asker
from tfgrpo.distill.parse import read_operations
from tfgrpo.types import DroppedOperation, Operation, OperationKind, SemanticAdvantage, Struct


class Proposals(Struct, frozen=True):
    """Readable operations in canonical order, and the unreadable ones with their reasons."""

    operations: tuple[Operation, ...] = ()
    dropped: tuple[DroppedOperation, ...] = ()


async def propose(
    asker: Asker,
    key: str,
    advantage: SemanticAdvantage,
    version: int,
    experiences: str,
    way: Literal["model", "add"] = "model",
) -> Proposals:
    """Say which operations a lesson calls for; an empty library needs no call: the lesson is added.

    Args:
        asker: asks the distiller.
        key: logical key; also the source of the operations.
        advantage: the lesson.
        version: version of the library in view.
        experiences: that library as the prompt shows it.
        way: "add" adds the lesson without asking.

    Raises:
        DistillError: the reply stayed unreadable after its repair round.
        ModelError: a call failed.
    """
    if not experiences or way == "add":
        return Proposals((addition(advantage, version, key),))
    replies = await asker.structured(
        key,
        "propose",
        operations_schema(asker.words),
        lambda value: read_operations(
            value, base_version=version, source=key, sources=(advantage.task_id,), words=asker.words
        ),
        experiences=experiences,
        new=advantage.text,
    )
    return Proposals(*replies[0])


def addition(advantage: SemanticAdvantage, version: int, source: str) -> Operation:
    """The operation that adds an advantage's lesson as it is."""
    return Operation(
        OperationKind.ADD,
        text=advantage.text,
        base_version=version,
        source=source,
        sources=(advantage.task_id,),
    )


def operations_schema(words: int) -> dict[str, Any]:
    """The JSON schema of a list of operations."""
    characters = words * 5
    item = {
        "type": "object",
        "properties": {
            "operation": {"enum": ["ADD", "MODIFY", "DELETE", "KEEP"]},
            "id": {"type": "string", "maxLength": 12},
            "merges": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 32},
            "when": {"type": "string", "maxLength": characters * 2 // 3},
            "do": {"type": "string", "maxLength": characters // 3},
        },
        "required": ["operation"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"operations": {"type": "array", "items": item}},
        "required": ["operations"],
        "additionalProperties": False,
    }
