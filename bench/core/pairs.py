"""The hand-written pairs and their two halves: rules may be tuned on "seen" only, "unseen" says how good they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Pair:
    id: str
    kind: str  # same-edit, same-synonym, paraphrase, flip or related
    flip: str | None  # what sort of flip it is
    a: str
    b: str

    @property
    def seen(self) -> bool:
        """Whether the pair may be looked at while tuning: the first hex digit of sha256(id) is even."""
        return int(hashlib.sha256(self.id.encode()).hexdigest()[0], 16) % 2 == 0


def load_pairs() -> list[Pair]:
    path = Path(__file__).with_name("pairs.jsonl")
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [Pair(row["id"], row["kind"], row.get("flip"), row["a"], row["b"]) for row in rows]
