"""One coherent set of operations from a step's proposals: merged, de-duplicated, conflicts settled.

Two ways (METHOD step 5). "batch" is the paper's: one call sees all proposals, and what of the library is near
them, and answers with the operations that replace them. "strategy" is for small models, which lose lessons when
they have to rewrite many at once: lessons of one strategy are put together by rule, and the model only writes one
situation that covers theirs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Literal

import msgspec

from tfgrpo.distill.ask import Asker
from tfgrpo.distill.parse import check_length, experience_text, read_operations, split_experience
from tfgrpo.distill.propose import Proposals, operations_schema
from tfgrpo.errors import DistillError, ModelError
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import DroppedOperation, Fault, FaultKind, Operation, OperationKind, Struct, label_of


class Settled(Struct, frozen=True):
    """The sets of operations a step may take, by name: "proposed" and, where they were consolidated, "consolidated".

    `fault` tells why consolidation broke; the proposals then stand as they are.
    """

    operations: dict[str, tuple[Operation, ...]]
    dropped: tuple[DroppedOperation, ...] = ()
    fault: Fault | None = None


async def settle(
    asker: Asker,
    key: Key,
    proposals: tuple[Operation, ...],
    library: ExperienceLibrary,
    way: Literal["batch", "strategy", "none"],
) -> Settled:
    """The proposals as they are and, where there are several and the way is not "none", consolidated.

    Arguments as in `consolidate`.

    Raises:
        RunStoppedError, JournalError: the run cannot go on.
    """
    if not proposals:
        return Settled({})
    if len(proposals) == 1 or way == "none":
        return Settled({"proposed": proposals})
    try:
        consolidated = await consolidate(asker, key, proposals, library, way)
    except (DistillError, ModelError) as error:
        return Settled({"proposed": proposals}, fault=Fault(FaultKind.DISTILLER, error.kind, error.message))
    return Settled({"proposed": proposals, "consolidated": consolidated.operations}, consolidated.dropped)


async def consolidate(
    asker: Asker,
    key: Key,
    proposals: tuple[Operation, ...],
    library: ExperienceLibrary,
    way: Literal["batch", "strategy"],
) -> Proposals:
    """Settle a step's proposals.

    Args:
        asker: asks the distiller.
        key: of the calls; also what the resulting operations are ordered by.
        proposals: the step's operations in canonical order.
        library: the library they are proposed for.
        way: "batch" or "strategy".

    Returns:
        The operations that replace the proposals, and what was unreadable in the replies. A merged ADD comes
        with the deletions of the experiences it replaces.

    Raises:
        DistillError: a reply stayed unreadable after its repair round.
        ModelError: a call failed.
    """
    if way == "strategy":
        return await _by_strategy(asker, key, proposals, library)
    replies = await asker.structured(
        key,
        "consolidate",
        operations_schema(asker.words),
        lambda value: read_operations(
            value,
            base_version=library.version,
            source=key.text,
            sources=_sources(proposals),
            words=asker.words,
        ),
        experiences=asker.near(
            library,
            [operation.text for operation in proposals if operation.text],
            [operation.target for operation in proposals if operation.target is not None],
        ),
        proposals=[describe(operation, labels=True) for operation in proposals],
    )
    operations, dropped = replies[0]
    if dropped and not operations:
        raise DistillError(f"no operation of the reply to {key} could be read: {dropped[0].reason}")
    return Proposals(_with_deletions(operations, key.text, library), dropped)


async def _by_strategy(
    asker: Asker, key: Key, proposals: tuple[Operation, ...], library: ExperienceLibrary
) -> Proposals:
    settled = [operation for operation in proposals if operation.kind is not OperationKind.ADD]
    touched = {label_of(operation.target) for operation in settled if operation.target is not None}
    clusters: dict[str, list[Operation]] = defaultdict(list)
    for operation in proposals:
        if operation.kind is OperationKind.ADD:
            clusters[_strategy(operation.text)].append(operation)
    for number, (strategy, members) in enumerate(sorted(clusters.items())):
        known = [e for e in library.entries if e.label not in touched and _strategy(e.text) == strategy]
        texts = list(dict.fromkeys([entry.text for entry in known] + [member.text for member in members]))
        if len(texts) < 2:
            settled += members
            continue
        text = await _generalize(asker, key.do(str(number)), texts)
        parents = tuple(entry.id for entry in known)
        settled.append(
            msgspec.structs.replace(members[0], text=text, sources=_sources(tuple(members)), parents=parents)
        )
    return Proposals(_with_deletions(tuple(settled), key.text, library))


async def _generalize(asker: Asker, key: Key, texts: list[str]) -> str:
    """One experience whose situation covers those of several with the same strategy."""
    situations = [split_experience(text)[0] for text in texts]
    strategy = split_experience(texts[0])[1]
    bound = max(asker.words - len(strategy.split()) - 1, 4)
    schema = {
        "type": "object",
        "properties": {"when": {"type": "string", "minLength": 3, "maxLength": bound * 6}},
        "required": ["when"],
        "additionalProperties": False,
    }

    def read(value: Any) -> str:
        when = value.get("when") if isinstance(value, dict) else None
        if not isinstance(when, str) or not when.strip():
            raise DistillError('expected one JSON object with the key "when"')
        text = experience_text(when, strategy)
        check_length(text, asker.words)
        return text

    replies = await asker.structured(
        key, "generalize", schema, read, situations=situations, strategy=strategy, bound=bound
    )
    return replies[0]


def describe(operation: Operation, *, labels: bool = False) -> str:
    """An operation in one line, as pages show it or, with `labels` in place of ids, as prompts do."""
    shown = operation.target or ""
    target = f" [{label_of(shown) if labels else shown}]" if shown else ""
    return f"{operation.kind.upper()}{target} {operation.text}".strip()


def _with_deletions(
    operations: tuple[Operation, ...], source: str, library: ExperienceLibrary
) -> tuple[Operation, ...]:
    """Give every merged ADD the deletions of its parents, and all of them their canonical order.

    Parents that the library does not have are left out: with one of them the ADD would be dropped, and the
    deletions of the others would stand alone.
    """
    result: list[Operation] = []
    for proposed in operations:
        parents = tuple(parent for parent in proposed.parents if parent in library)
        operation = msgspec.structs.replace(proposed, parents=parents)
        result.append(operation)
        if operation.kind is OperationKind.ADD:
            result += [
                msgspec.structs.replace(
                    operation, kind=OperationKind.DELETE, target=parent, text="", parents=()
                )
                for parent in operation.parents
            ]
    return tuple(
        msgspec.structs.replace(operation, source=source, index=index)
        for index, operation in enumerate(result)
    )


def _sources(operations: tuple[Operation, ...]) -> tuple[str, ...]:
    return tuple(sorted({source for operation in operations for source in operation.sources}))


def _strategy(text: str) -> str:
    """What lessons of one strategy have in common, letter case and punctuation aside."""
    return re.sub(r"\W+", " ", split_experience(text)[1]).strip().casefold()
