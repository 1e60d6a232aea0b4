"""One engine in its process: reads what to measure as a line of JSON, answers with a line of JSON.

CPU seconds are `time.process_time` around the engine's own work alone: reading data and judging answers is outside.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench.core import judge
from bench.core.data import Data
from bench.core.protocol import DIMENSIONS, Engine, Vectors

Figures = dict[str, float]
MICRO = 1e6


class Child:
    """An engine and the data it was last given."""

    def __init__(self, name: str) -> None:
        # Of any of several shapes: an engine has what its definitions ask for.
        self.module = importlib.import_module(f"bench.core.engines.{name}")
        self.engine: Engine | None = None
        self.inserted = 0.0
        self.opened: tuple[str, Data] | None = None
        self.held: dict[str, Any] = {}

    def data(self, folder: str) -> Data:
        if self.opened is None or self.opened[0] != folder:
            self.opened = (folder, Data(Path(folder)))
            self.held = {}
        return self.opened[1]

    def new(self) -> Engine:
        self.engine = None
        gc.collect()
        engine: Engine = self.module.Engine()
        self.engine = engine
        return engine

    def fill(self, data: Data, batch: int) -> Engine:
        """A new engine with all texts in it; notes the CPU seconds that took."""
        engine = self.new()
        spent = 0.0
        vectors = data.vectors()
        for first, texts in data.batches(batch):
            rows = np.array(vectors[first : first + len(texts)])
            start = time.process_time()
            engine.insert(first, texts, rows)
            spent += time.process_time() - start
        finish: Callable[[], None] | None = getattr(engine, "finish", None)
        if finish is not None:
            start = time.process_time()
            finish()
            spent += time.process_time() - start
        self.inserted = spent
        numbers: Callable[[], None] | None = getattr(engine, "numbers", None)
        if numbers is not None:
            numbers()
        return engine

    def near(self, ask: dict[str, Any]) -> Figures:
        data = self.data(ask["data"])
        figures: Figures = {}
        size = int(ask["size"])
        if self.engine is None or ask["refill"]:
            self.fill(data, int(ask["batch"]))
            figures["insert"] = self.inserted / size * MICRO
            figures |= self.entries(data, size)
        engine = self.engine
        assert engine is not None
        if not hasattr(engine, "near") or not ask.get("query", True):
            return figures
        limit = ask.get("limit")
        questions, vectors = data.questions()[:limit], data.question_vectors()[:limit]
        # Who is too slow for all questions is not warmed up for as long either.
        warm = int(ask["warm"]) if limit is None else limit // 4
        for number in range(min(warm, len(questions))):
            engine.near(questions[number].text, vectors[number])
        spent: list[float] = []
        found: list[bool] = []
        verdicts: list[bool | None] = []
        same = self.held.setdefault("same", judge.classes(size, data.planted()))
        for question, vector in zip(questions, vectors, strict=True):
            start = time.process_time()
            near = engine.near(question.text, vector)
            spent.append(time.process_time() - start)
            # Another copy of the base is as good an answer as the base: a library may hold but one of them.
            base = same[question.base] if question.base >= 0 else -1
            found.append(base >= 0 and any(same[number] == base for number in near.ids if number >= 0))
            verdicts.append(near.duplicate)
        figures["query"] = statistics.median(spent) * MICRO
        figures["query mean"] = statistics.fmean(spent) * MICRO
        embed: Callable[[list[str]], Vectors] | None = getattr(self.module, "embed", None)
        if embed is not None:
            spent_embedding = []
            for question in questions:
                start = time.process_time()
                embed([question.text])
                spent_embedding.append(time.process_time() - start)
            figures["embedding"] = statistics.median(spent_embedding) * MICRO
        kinds = [question.kind for question in questions]
        for kind in ("planted", "new"):
            part = [s for s, k in zip(spent, kinds, strict=True) if (k == "new") == (kind == "new")]
            if part:
                figures[f"query {kind}"] = statistics.median(part) * MICRO
        return figures | judge.answers(kinds, found, verdicts)

    def deduplicate(self, ask: dict[str, Any]) -> Figures:
        data = self.data(ask["data"])
        texts = self.held.setdefault("texts", data.texts())
        engine = self.new()
        start = time.process_time()
        answer = engine.deduplicate(texts)
        spent = time.process_time() - start
        return {"seconds": spent, "deduplicate": spent / len(texts) * MICRO} | judge.groups(
            answer, data.planted()
        )

    def quality(self, ask: dict[str, Any]) -> Figures:
        data = self.data(ask["data"])
        texts = self.held.setdefault("texts", data.texts())
        figures = judge.groups(self.new().deduplicate(texts), data.planted())
        path = Path(ask["pairs"])
        if path.exists():
            rows = [
                json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
            ]
            merged = []
            for row in rows:
                answer = self.module.Engine().deduplicate([row["a"], row["b"]])
                merged.append(answer != [0, 1])
            figures |= judge.pairs(rows, merged)
        return figures

    def prompt(self, ask: dict[str, Any]) -> Figures:
        data = self.data(ask["data"])
        budget = int(ask["budget"])
        if self.engine is None:
            self.fill(data, int(ask["batch"]))
        engine = self.engine
        assert engine is not None
        texts = self.held.setdefault("texts", data.texts())
        questions, vectors = data.questions(), data.question_vectors()
        for number in range(min(int(ask["warm"]), len(questions))):
            engine.prompt(questions[number].text, vectors[number], budget)
        same = self.held.setdefault("same", judge.classes(len(texts), data.planted()))
        recount: Callable[[str], int] = engine.recount
        spent, tokens, held, off = [], [], [], []
        for question, vector in zip(questions, vectors, strict=True):
            start = time.process_time()
            prompt = engine.prompt(question.text, vector, budget)
            spent.append(time.process_time() - start)
            tokens.append(prompt.tokens)
            off.append(abs(recount(prompt.text) - prompt.tokens))
            if question.base >= 0:
                # Another copy of the base is as good; that it is named is not enough, its text must be there.
                flat = " ".join(prompt.text.split())
                base = same[question.base]
                near = [number for number in prompt.ids if number >= 0 and same[number] == base]
                held.append(any(" ".join(texts[number].split()) in flat for number in near))
        return {
            "prompt": statistics.median(spent) * MICRO,
            "prompt mean": statistics.fmean(spent) * MICRO,
            "most tokens": float(max(tokens)),
            "fewest tokens": float(min(tokens)),
            "miscounted": float(max(off)),
            "relevant entry in it": judge.share(sum(held), len(held)),
        }

    def memory(self, ask: dict[str, Any]) -> Figures:
        """Growth of the resident set by the texts and all that is kept of them."""
        data = self.data(ask["data"])
        size = int(ask["size"])
        vectors = data.vectors()
        engine = self.new()
        trim()
        before = resident()
        for first, texts in data.batches(int(ask["batch"])):
            engine.insert(first, texts, np.array(vectors[first : first + len(texts)]))
            # The pages of the mapped file are not the engine's.
            drop(vectors)
        trim()
        figures: Figures = {"bytes": (resident() - before) / size}
        return figures | self.entries(data, size)

    def entries(self, data: Data, size: int) -> Figures:
        """How many entries the engine says it keeps, if it says so, and by how many texts there are that differ.

        Who refuses copies keeps fewer than were given, but never fewer than differ.
        """
        engine: Any = self.engine
        if not hasattr(engine, "__len__"):
            return {}
        entries = len(engine)
        same = self.held.setdefault("same", judge.classes(size, data.planted()))
        return {"entries": float(entries), "entries by different ones": entries / len(set(same))}

    def scan(self, ask: dict[str, Any]) -> Figures:
        data = self.data(ask["data"])
        if self.engine is None:
            self.new().prepare_scan(np.array(data.vectors()))
        engine = self.engine
        assert engine is not None
        floor: Callable[[], float] | None = getattr(engine, "floor", None)
        passes = int(ask["passes"])
        if floor is not None:
            return {"scan": statistics.median(floor() for _ in range(passes)) * MICRO}
        questions, vectors = data.questions(), data.question_vectors()
        engine.scan(vectors[0])
        spent, found = [], []
        for question, vector in list(zip(questions, vectors, strict=True))[:passes]:
            start = time.process_time()
            ids = engine.scan(vector)
            spent.append(time.process_time() - start)
            if question.kind == "exact":
                found.append(question.base in ids)
        return {"scan": statistics.median(spent) * MICRO, "found exact": judge.share(sum(found), len(found))}

    def cached(self, ask: dict[str, Any]) -> Figures:
        shares: Callable[[list[str], dict[str, Any]], Figures] = self.module.cached
        data = self.data(ask["data"])
        copies = {number for index, base, _ in data.planted() for number in (index, base)}
        return shares([text for number, text in enumerate(data.texts()) if number not in copies], ask)

    def twin(self, ask: dict[str, Any]) -> dict[str, Any]:
        data = self.data(ask["data"])
        engine = self.engine or self.new()
        given = self.held.setdefault("twin", {"texts": data.texts(), "vectors": np.array(data.vectors())})
        answer: dict[str, Any] = {}
        for name in ask["modules"]:
            try:
                work = engine.twin(name, given)
            except NotImplementedError:
                continue
            start = time.process_time()
            result = work()
            answer[name] = (time.process_time() - start) * 1e3
            # Compared as a digest: both sides must have done the same work.
            answer[f"result {name}"] = hashlib.sha256(json.dumps(result).encode()).hexdigest()[:16]
        return answer

    def describe(self, ask: dict[str, Any]) -> dict[str, str]:
        return {"engine": self.module.Engine().describe(), "python": sys.version.split()[0]}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    gc.collect()
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def drop(vectors: Vectors) -> None:
    """Gives the mapped file's pages back, so that they do not count as memory of the engine."""
    mapped = getattr(vectors, "_mmap", None)
    if mapped is not None:
        import mmap

        mapped.madvise(mmap.MADV_DONTNEED)


def main(arguments: Sequence[str]) -> None:
    assert DIMENSIONS % 64 == 0
    child = Child(arguments[0])
    # What a library prints must not come between the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        ask = json.loads(line)
        answer = getattr(child, ask["do"])(ask)
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
