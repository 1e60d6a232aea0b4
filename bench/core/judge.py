"""What an engine found, beside what was planted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from bench.core.data import LEXICAL, SAME
from bench.core.protocol import DUPLICATE


def share(part: int, whole: int) -> float:
    """`part` of `whole`; all of nothing is 1."""
    return part / whole if whole else 1.0


def answers(
    kinds: Sequence[str], found: Sequence[bool], duplicate: Sequence[bool | None]
) -> dict[str, float]:
    """Share of each kind of question whose base is among the answers; share of new texts called duplicates."""
    result: dict[str, float] = {}
    for kind in sorted(set(kinds) - {"new"}):
        hits = [hit for k, hit in zip(kinds, found, strict=True) if k == kind]
        result[f"found {kind}"] = share(sum(hits), len(hits))
    verdicts = [verdict for k, verdict in zip(kinds, duplicate, strict=True) if k == "new"]
    if any(verdict is not None for verdict in verdicts):
        result["new called duplicate"] = share(sum(bool(verdict) for verdict in verdicts), len(verdicts))
    return result


def classes(size: int, planted: Sequence[tuple[int, int, str]]) -> list[int]:
    """For each text the first of those that say the same; a flipped fact says something else."""
    root = list(range(size))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for index, base, kind in planted:
        if kind in SAME:
            a, b = find(index), find(base)
            root[max(a, b)] = min(a, b)
    return [find(index) for index in range(size)]


def groups(answer: Sequence[int], planted: Sequence[tuple[int, int, str]]) -> dict[str, float]:
    """Precision and recall of a de-duplication, and the share of flipped facts that it merged.

    Texts that say the same form a class. A text may go if another of its class stays; where the engine names what
    it is a duplicate of, that must be of its class. Flipped facts are of a class of their own.
    """
    same = classes(len(answer), planted)
    gone = [target != index for index, target in enumerate(answer)]
    stays: dict[int, int] = {}
    for index, went in enumerate(gone):
        stays[same[index]] = stays.get(same[index], 0) + (not went)
    wrong = 0
    emptied: set[int] = set()
    for index, target in enumerate(answer):
        if not gone[index]:
            continue
        mine = same[index]
        if target != DUPLICATE:
            wrong += same[target] != mine
        elif stays[mine] == 0 and mine not in emptied:
            emptied.add(mine)
            wrong += 1
    dropped = sum(gone)

    def left(index: int) -> bool:
        """Whether it went, and not for the sake of a text that says something else."""
        return gone[index] and (answer[index] == DUPLICATE or same[answer[index]] == same[index])

    def met(index: int, base: int) -> bool:
        return left(index) or left(base)

    result = {"dropped": float(dropped), "precision": share(dropped - wrong, dropped)}
    flips: list[bool] = []
    for kind in sorted({kind for _, _, kind in planted}):
        rows = [(index, base) for index, base, k in planted if k == kind]
        if kind in SAME:
            result[f"recall {kind}"] = share(sum(met(*row) for row in rows), len(rows))
            continue
        merged = []
        for index, base in rows:
            if answer[index] not in (index, DUPLICATE):
                merged.append(same[answer[index]] != same[index])
            else:
                merged.append(gone[index] or (gone[base] and stays[same[base]] == 0))
        result[f"merged {kind}"] = share(sum(merged), len(merged))
        flips += merged
    result["hard negatives merged"] = share(sum(flips), len(flips))
    lexical = [(index, base) for index, base, kind in planted if kind in LEXICAL]
    result["recall lexical"] = share(sum(met(*row) for row in lexical), len(lexical))
    return result


def half(identity: str) -> str:
    """Which half of the hand-written pairs one is of: the unseen is looked at by nobody before the record."""
    return "unseen" if int(hashlib.sha256(identity.encode()).hexdigest()[0], 16) % 2 else "seen"


def pairs(rows: Sequence[dict[str, Any]], merged: Sequence[bool]) -> dict[str, float]:
    """Share of the hand-written pairs merged, by half and kind."""
    result: dict[str, float] = {}
    for which in ("seen", "unseen"):
        for kind in sorted({str(row["kind"]) for row in rows}):
            hits = [
                hit
                for row, hit in zip(rows, merged, strict=True)
                if row["kind"] == kind and half(str(row["id"])) == which
            ]
            if hits:
                result[f"pairs {which} {kind} merged"] = share(sum(hits), len(hits))
                result[f"pairs {which} {kind} count"] = float(len(hits))
        wrong = [
            hit
            for row, hit in zip(rows, merged, strict=True)
            if row["kind"] == "flip" and half(str(row["id"])) == which
        ]
        if wrong:
            result[f"pairs {which} hard negatives merged"] = share(sum(wrong), len(wrong))
    return result
