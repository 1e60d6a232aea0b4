"""Operations for one semantic advantage, the library in view (METHOD step 5)."""

from __future__ import annotations

from typing import Any, Literal

from msgspec.structs import replace

from tfgrpo.distill.ask import Asker
from tfgrpo.distill.parse import read_operations
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary, Verdict
from tfgrpo.types import DroppedOperation, Operation, OperationKind, SemanticAdvantage, Struct


class Proposals(Struct, frozen=True):
    """Readable operations in canonical order, and the unreadable ones with their reasons."""

    operations: tuple[Operation, ...] = ()
    dropped: tuple[DroppedOperation, ...] = ()


async def propose(
    asker: Asker,
    key: Key,
    source: str,
    advantage: SemanticAdvantage,
    library: ExperienceLibrary,
    way: Literal["model", "add"] = "model",
) -> Proposals:
    """Say which operations a lesson calls for, in view of the experiences that it might repeat or contradict.

    Two answers need no call: into an empty library the lesson is added, and one that the library says already
    keeps what is there.

    Args:
        asker: asks the distiller.
        key: of the call.
        source: the key of the group that the lesson is drawn from, as text.
        advantage: the lesson.
        library: E, of which the neighbours of the lesson are in view.
        way: "add" adds the lesson without asking.

    Raises:
        DistillError: the reply stayed unreadable after its repair round.
        ModelError: a call failed.
    """
    version = library.version
    if not len(library) or way == "add":
        return Proposals((addition(advantage, version, source),))
    nearest = library.neighbours(advantage.text, 1)
    if nearest and nearest[0].verdict is Verdict.DUPLICATE:
        said = addition(advantage, version, source)
        return Proposals((replace(said, kind=OperationKind.KEEP, target=nearest[0].id, text=""),))
    replies = await asker.structured(
        key,
        "propose",
        operations_schema(asker.words),
        lambda value: read_operations(
            value, base_version=version, source=source, sources=(source,), words=asker.words
        ),
        experiences=asker.near(library, [advantage.text]),
        new=advantage.text,
    )
    return Proposals(*replies[0])


def addition(advantage: SemanticAdvantage, version: int, source: str) -> Operation:
    """The operation that adds an advantage's lesson as it is; `source` is the key of its group, as text."""
    return Operation(
        OperationKind.ADD,
        text=advantage.text,
        base_version=version,
        source=source,
        sources=(source,),
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
