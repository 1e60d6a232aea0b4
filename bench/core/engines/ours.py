"""tfgrpo itself, by its public Python face: what a caller pays, embedding included."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench.core.protocol import DIMENSIONS, NEAR, Near, Prompt, Vector, Vectors

from tfgrpo import _core
from tfgrpo.library import ExperienceLibrary, PromptAssembler, Verdict, count_tokens
from tfgrpo.types import ApplyReport, Operation, OperationKind, Task

BUDGET = 4000


def stamp() -> str:
    """What the vectors depend on: the compiled core."""
    return hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()


def embed(texts: list[str]) -> Vectors:
    """Vectors of the built-in embedder, as float32 of length 1: what the rivals are given."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.uint64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    data = _core.embed(b"".join(encoded), offsets)
    return np.frombuffer(data, np.float32).reshape(len(texts), DIMENSIONS)


def adds(texts: list[str]) -> list[Operation]:
    """An ADD a text, applied in this order."""
    return [Operation(OperationKind.ADD, text=text, index=index) for index, text in enumerate(texts)]


class Engine:
    def __init__(self) -> None:
        self.library = ExperienceLibrary.empty()
        # The core's ids are its own; the bench counts texts.
        self.number: dict[str, int] = {}
        # What was refused as a duplicate, by the experience that says it already.
        self.refused: dict[str, list[int]] = {}
        self.reports: list[tuple[int, int, ApplyReport]] = []

    def describe(self) -> str:
        return (
            f"tfgrpo, Python {platform.python_version()}, one thread, with the JSON that the Python facade decodes; "
            "what is a duplicate is refused when it is inserted"
        )

    def __len__(self) -> int:
        return len(self.library)

    def insert(self, first: int, texts: list[str], vectors: Vectors) -> None:
        self.library, report = self.library.apply(adds(texts))
        self.reports.append((first, len(texts), report))

    def finish(self) -> None:
        """Asks once, so that what is made at the first question is counted as indexing."""
        self.library.neighbours("what is made at the first question", 1)

    def numbers(self) -> None:
        """Which text each id is, for the judge; outside of what is measured."""
        for first, count, report in self.reports:
            dropped = {drop.operation.index for drop in report.dropped}
            stays = [first + index for index in range(count) if index not in dropped]
            self.number.update(zip(report.added, stays, strict=True))
            for drop in report.dropped:
                twin = drop.reason.rpartition(" ")[2]
                self.refused.setdefault(twin, []).append(first + drop.operation.index)
        self.reports = []

    def near(self, text: str, vector: Vector) -> Near:
        judgement = self.library.judge(text, NEAR)
        ids = [neighbour.id for neighbour in judgement.neighbours]
        # An experience stands for the texts that were refused because of it.
        numbers = [number for id_ in ids for number in (self.number.get(id_, -1), *self.refused.get(id_, ()))]
        return Near(numbers, judgement.verdict is Verdict.DUPLICATE)

    def deduplicate(self, texts: list[str]) -> list[int]:
        answer = list(range(len(texts)))
        for duplicate in ExperienceLibrary.empty().deduplicate(texts):
            assert duplicate.text is not None  # an empty library has no experience to be like
            answer[duplicate.index] = duplicate.text
        return answer

    def prompt(self, question: str, vector: Vector, budget: int) -> Prompt:
        task = Task("q", question)
        assembler = PromptAssembler(self.library, token_budget=budget, batch=[task])
        prompt = assembler.assemble(task)
        learned, _question = prompt.chat
        prior = assembler.prior
        return Prompt(learned["content"], prior.tokens, [self.number.get(name, -1) for name in prior.ids])

    def recount(self, text: str) -> int:
        return count_tokens(text)

    def twin(self, name: str, data: dict[str, Any]) -> Callable[[], Any]:
        from bench.core.engines.python_twins import HEADING, QUERIES, SOME, TOP, numbered, ranks

        texts: list[str] = data["texts"]
        if name == "tokens":
            return lambda: [count_tokens(text, "cl100k") for text in texts]
        if name == "deduplicate":
            return lambda: self.deduplicate(texts[:SOME]) == []
        if name == "relevant":
            library = ExperienceLibrary.empty().apply(adds(numbered(texts)))[0]
            questions = texts[:QUERIES]
            return lambda: [len(library.relevant([question], TOP)) for question in questions]
        if name == "prior":
            library, report = ExperienceLibrary.empty().apply(adds(numbered(texts)))
            library = library.with_tokenizer("cl100k").with_credit(
                dict(zip(report.added, ranks(len(report.added)), strict=True))
            )
            library.pack(HEADING, BUDGET)
            return lambda: list(library.pack(HEADING, BUDGET)[:3:2])  # text and tokens
        if name == "apply":
            library = ExperienceLibrary.empty().apply(adds(numbered(texts[1000:])))[0]
            operations = adds(numbered(texts[:1000], "new"))
            return lambda: len(library.apply(operations)[0])
        raise NotImplementedError(name)


def cached(texts: list[str], ask: dict[str, Any]) -> dict[str, float]:
    """The cached share of prompts as tfgrpo renders them."""
    from bench.core import practice

    return practice.cached(texts, ask, practice.our_prompts)
