"""The data of a definition as files that every engine's process reads: texts, questions, vectors.

Made once for a size, a seed and the code that makes it, kept in `.cache/bench/data`.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench.core.protocol import DIMENSIONS, Vectors

LEXICAL = ("exact", "case", "edit")
SAME = (*LEXICAL, "synonym", "paraphrase")
BATCH = 10_000
# The files beside the corpus's that do not decide what it holds: with other code of the others comes other data.
APART = {
    "child", "definition", "judge", "libraries", "practice", "prefix_cache", "prior_forms", "protocol", "runner",
    "scan_bench", "table", "twins",
}  # fmt: skip


class Question(NamedTuple):
    """A held-out text: what it is a copy of (-1: of nothing) and of which kind ("new": none)."""

    text: str
    base: int
    kind: str


class Data:
    """One set of data, opened. What is large is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def batches(self, size: int) -> Iterator[tuple[int, list[str]]]:
        """The texts in batches, each with the number of its first."""
        batch: list[str] = []
        first = 0
        with (self.folder / "texts.jsonl").open(encoding="utf-8") as file:
            for line in file:
                batch.append(json.loads(line))
                if len(batch) == size:
                    yield first, batch
                    first += size
                    batch = []
        if batch:
            yield first, batch

    def texts(self) -> list[str]:
        return [text for _, batch in self.batches(BATCH) for text in batch]

    def vectors(self) -> Vectors:
        loaded: Vectors = np.load(self.folder / "vectors.npy", mmap_mode="r")
        return loaded

    def questions(self) -> list[Question]:
        return [Question(*row) for row in json.loads((self.folder / "questions.json").read_text())]

    def question_vectors(self) -> Vectors:
        loaded: Vectors = np.load(self.folder / "question_vectors.npy")
        return loaded

    def planted(self) -> list[tuple[int, int, str]]:
        """Index, base and kind of every planted text that is among the texts."""
        return [
            (index, base, kind)
            for index, base, kind in json.loads((self.folder / "planted.json").read_text())
        ]


def _digest(paths: Iterable[Path], *words: object) -> str:
    state = hashlib.sha256(repr(words).encode())
    for path in sorted(paths):
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def hold_out(
    texts: Sequence[str],
    planted: Sequence[tuple[int, int, str]],
    size: int,
    seed: int,
    questions: int,
    kinds: Sequence[str],
    new: bool,
) -> tuple[list[str], list[tuple[int, int, str]], list[Question]]:
    """Takes questions out of the texts: planted copies of `kinds` and, if `new`, as many that are copies of nothing.

    The base of a question always stays. The texts are cut to `size`.
    """
    draw = random.Random(seed)
    bases = {base for _, base, _ in planted}
    touched = bases | {index for index, _, _ in planted}
    copies = [row for row in planted if row[2] in kinds and row[0] not in bases]
    wanted = questions // 2 if new else questions
    # As many of each kind as there are, so that no kind decides the median alone.
    chosen: list[tuple[int, int, str]] = []
    for place, kind in enumerate(kinds):
        share = (wanted * (place + 1)) // len(kinds) - (wanted * place) // len(kinds)
        pool = [row for row in copies if row[2] == kind]
        if len(pool) < share:
            raise SystemExit(
                f"the corpus of {size} plants only {len(pool)} texts of the kind {kind}, not {share}"
            )
        chosen += draw.sample(pool, share)
    lonely = [index for index in range(len(texts)) if index not in touched]
    fresh = draw.sample(lonely, questions - wanted) if new else []
    out = {row[0] for row in chosen} | set(fresh)
    keep = [index for index in range(len(texts)) if index not in out]
    # What is too much is dropped from the end, but never a base that is asked for.
    needed = {row[1] for row in chosen}
    spare = len(keep) - size
    if spare < 0:
        raise SystemExit(f"{len(texts)} texts without {len(out)} questions are fewer than {size}")
    dropped: set[int] = set()
    for index in reversed(keep):
        if len(dropped) == spare:
            break
        if index not in needed:
            dropped.add(index)
    keep = [index for index in keep if index not in dropped]
    place_of = {index: place for place, index in enumerate(keep)}
    rows = [Question(texts[index], place_of[base], kind) for index, base, kind in chosen]
    rows += [Question(texts[index], -1, "new") for index in fresh]
    draw.shuffle(rows)
    left = [(place_of[a], place_of[b], kind) for a, b, kind in planted if a in place_of and b in place_of]
    return [texts[index] for index in keep], left, rows


def make(cache: Path, definition: dict[str, Any], needs_vectors: bool) -> Data:
    """The data of a definition, from the cache or new."""
    from bench.core import corpus
    from bench.core.engines import ours

    size, seed = int(definition["size"]), int(definition["seed"])
    questions, kinds = int(definition.get("questions", 0)), list(definition.get("kinds", LEXICAL))
    new = bool(definition.get("new", True))
    makers = [path for path in Path(corpus.__file__).parent.glob("*.py") if path.stem not in APART]
    name = _digest({Path(__file__), *makers}, size, seed, questions, kinds, new, definition.get("built"))
    folder = cache / f"{size}-{name}"
    if not (folder / "planted.json").exists():
        # Of a rare kind there may be more to ask for in a larger corpus, which is cut to size.
        built = corpus.build(int(definition.get("built", size + questions)), seed)
        planted = [(int(p.index), int(p.base), str(p.kind)) for p in built.planted]
        texts, rows = list(built.texts), list[Question]()
        if questions:
            texts, planted, rows = hold_out(texts, planted, size, seed, questions, kinds, new)
        scratch = folder.with_suffix(".part")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with (scratch / "texts.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\n" for text in texts)
        (scratch / "questions.json").write_text(json.dumps(rows))
        (scratch / "planted.json").write_text(json.dumps(planted))
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    data = Data(folder)
    # Vectors are as good as the core that made them: another core, other vectors.
    stamp = ours.stamp()
    if needs_vectors and (not (folder / "stamp").exists() or (folder / "stamp").read_text() != stamp):
        vectors = np.lib.format.open_memmap(
            folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(size, DIMENSIONS)
        )
        for first, batch in data.batches(BATCH):
            vectors[first : first + len(batch)] = ours.embed(batch)
        vectors.flush()
        asked = [question.text for question in data.questions()]
        np.save(
            folder / "question_vectors.npy",
            ours.embed(asked) if asked else np.empty((0, DIMENSIONS), np.float32),
        )
        (folder / "stamp").write_text(stamp)
    return data
