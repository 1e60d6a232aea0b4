"""Ten steps of practice for the prefix cache: the same changes of a library, its prompts rendered in several ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from bench.core.prefix_cache import cached_share

from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.types import Experience, Operation, OperationKind, Task

SYSTEM = "Solve the task step by step. Check the result before you answer, and give the answer alone in the last line."
TOP = 20


class Practice:
    """The questions and the library of a definition, which changes at each step's end; `ask` has the numbers."""

    def __init__(self, texts: list[str], ask: dict[str, Any]) -> None:
        self.fresh = iter(texts)
        self.ask = ask
        self.budget = int(ask["budget"])
        self.questions = [
            Task(f"t{number}", " ".join(next(self.fresh) for _ in range(ask["sentences"])))
            for number in range(ask["tasks"])
        ]
        self.draw = np.random.default_rng(ask["seed"])
        self.library = ExperienceLibrary.empty()
        self.change(ask["start"], [], [])

    def change(self, new: int, edit: list[Experience], delete: list[Experience]) -> None:
        """Applies adds, edits and deletes; all must have been applied."""
        version = self.library.version
        changes = [Operation(OperationKind.ADD, text=next(self.fresh)) for _ in range(new)]
        changes += [
            Operation(OperationKind.MODIFY, target=entry.id, text=next(self.fresh), base_version=version)
            for entry in edit
        ]
        changes += [
            Operation(OperationKind.DELETE, target=entry.id, base_version=version) for entry in delete
        ]
        changes = [
            Operation(c.kind, c.target, c.text, c.base_version, index=index)
            for index, c in enumerate(changes)
        ]
        self.library, report = self.library.apply(changes)
        done = (len(report.added), len(report.modified), len(report.deleted))
        if done != (new, len(edit), len(delete)):
            reasons = [drop.reason for drop in report.dropped]
            raise SystemExit(f"wrong engine: of {len(changes)} changes {done} are applied: {reasons}")

    def step(self) -> None:
        """The step's end: adds, edits and deletes, drawn from the whole library."""
        edits, deletes = int(self.ask["edits"]), int(self.ask["deletes"])
        order = self.draw.permutation(len(self.library))[: edits + deletes]
        chosen = [self.library.entries[int(place)] for place in order]
        self.change(self.ask["adds"], chosen[:edits], chosen[edits:])


Render = Callable[[Practice], list[str]]


def our_prompts(practice: Practice) -> list[str]:
    """Each question's prompt as tfgrpo renders it."""
    assembler = PromptAssembler(practice.library, token_budget=practice.budget, system=SYSTEM)
    prompts = [assembler.assemble(task) for task in practice.questions]
    return ["\n".join(message["content"] for message in prompt.chat) for prompt in prompts]


def list_prompts(practice: Practice) -> list[str]:
    """The living experiences as a numbered list: a deletion moves the numbers of all behind it."""
    lines = [f"{place}. {entry.text}" for place, entry in enumerate(practice.library.entries, 1)]
    prior = SYSTEM + "\n\n" + "\n".join(lines)
    return [f"{prior}\n{task.input}" for task in practice.questions]


def question_prompts(practice: Practice) -> list[str]:
    """For each question its own nearest experiences."""
    prompts = []
    for task in practice.questions:
        lines = [f"[{entry.id}] {entry.text}" for entry in practice.library.relevant([task.input], TOP)]
        prompts.append(SYSTEM + "\n\n" + "\n".join(lines) + "\n" + task.input)
    return prompts


def tokens(text: str, known: dict[str, int]) -> list[int]:
    """Stable token ids: words with the space before them, and marks. What matters here is where texts differ."""
    return [known.setdefault(piece, len(known)) for piece in re.findall(r" ?\w+|\s+|[^\w\s]", text)]


def cached(texts: list[str], ask: dict[str, Any], render: Render) -> dict[str, float]:
    """The cached share of the practice's prompt tokens, without and with one or two leaders a step."""
    practice = Practice(texts, ask)
    known: dict[str, int] = {}
    steps: list[list[list[int]]] = []
    leaders: dict[int, list[tuple[int, ...]]] = {1: [], 2: []}
    most = 0
    rollouts = range(ask["rollouts"])
    for _step in range(ask["steps"]):
        prompts = [tokens(text, known) for text in render(practice) for _ in rollouts]
        most = max(most, *(len(prompt) for prompt in prompts))
        steps.append(prompts)
        asked = [task for task in practice.questions for _ in rollouts]
        assembler = PromptAssembler(practice.library)
        for different, chosen in leaders.items():
            chosen.append(assembler.leaders(asked, different))
        practice.step()
    # The same requests with a question's rollouts apart: each question once, then each again.
    apart = [
        [prompts[at] for first in rollouts for at in range(first, len(prompts), len(rollouts))]
        for prompts in steps
    ]
    plain = cached_share(steps)
    return {
        "cached in waves": plain.share,
        "cached in waves, rollouts apart": cached_share(apart).share,
        "cached with leaders": cached_share(steps, leaders[1]).share,
        "cached with two leaders": cached_share(steps, leaders[2]).share,
        "prompt tokens": float(plain.prompt_tokens),
        "longest prompt": float(most),
        "entries at the end": float(len(practice.library)),
    }
