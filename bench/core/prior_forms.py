"""The prior as a list and as a log: tokens, cached share and bill of the same changes, with and without leaders.

    TFGRPO_BENCH_LIBRARIES=<folder> python -m bench.core.prior_forms [--generated]

Half of a library is there before the first step. Each of ten steps adds of the rest, edits and deletes in proportion
to the library's size; an edited text keeps its first half. `--generated` adds the practice of the definition
"cached share". A list has one line an experience, edited in place. A log appends a line for an edit and another for
a deletion, and is written anew once more than a share of its tokens is dead. The bill counts a cached token as a part
of one that is not.
"""

from __future__ import annotations

import argparse
import random
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.core.corpus import real_libraries
from bench.core.practice import SYSTEM, Practice, tokens
from bench.core.prefix_cache import Prompt, cached_share

from tfgrpo.library import DEFAULT_HEADING, count_tokens

RECORD = Path(__file__).parents[1] / "record" / "prior.md"
DEFINITION = Path(__file__).parent / "definitions" / "13-cached-share.toml"
STEPS, TASKS, ROLLOUTS = 10, 20, 5
#: Above these shares of dead tokens a log is written anew.
BOUNDS = (0.08, 0.14, 0.2, 0.3)
#: What a cached token costs, of one that is not.
PRICES = (0.26, 0.1)
LEADERS = (0, 1, 2)

#: The texts of a library by id number, after each step.
Snapshots = Sequence[dict[int, str]]


class Line(NamedTuple):
    """A line of a log, and whether the library still says it."""

    number: int
    text: str
    size: int
    living: bool


class Log:
    """What a log shows of a library that changes."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.lines: list[Line] = []
        self.before: dict[int, str] = {}

    def show(self, now: dict[int, str]) -> str:
        """The lines after the change from the library shown last to this one."""
        for number in sorted(self.before.keys() | now.keys()):
            old, new = self.before.get(number), now.get(number)
            if old == new:
                continue
            self.lines = [
                line._replace(living=False) if line.number == number else line for line in self.lines
            ]
            if new is None:
                self.add(number, "(withdrawn: follow it no longer)", living=False)
            else:
                self.add(number, new if old is None else f"(revised) {new}")
        self.before = dict(now)
        dead = sum(line.size for line in self.lines if not line.living)
        if dead > self.bound * sum(line.size for line in self.lines):
            self.lines = []
            for number, text in now.items():
                self.add(number, text)
        return "".join(line.text for line in self.lines)

    def add(self, number: int, text: str, *, living: bool = True) -> None:
        line = f"[E{number}] {text}\n"
        self.lines.append(Line(number, line, count_tokens(line), living))


def listed(library: dict[int, str]) -> str:
    """One line an experience."""
    return "".join(f"[E{number}] {text}\n" for number, text in library.items())


def changed(texts: Sequence[str], seed: int) -> Iterator[dict[int, str]]:
    """A real library that grows from its half to about the whole, with edits and deletions."""
    draw = random.Random(seed)
    order = draw.sample(texts, len(texts))
    start = max(2, len(order) // 2)
    library = dict(enumerate(order[:start], 1))
    rest = iter(order[start:])
    number = start
    adds = max(1, (len(order) - start) // STEPS)
    for _ in range(STEPS):
        yield dict(library)
        chosen = draw.sample(sorted(library), min(len(library) - 1, adds // 2 + 1 + adds // 4))
        for place, target in enumerate(chosen):
            if place < adds // 4:
                del library[target]
            else:
                library[target] = edited(library[target], draw.choice(texts))
        for _add, text in zip(range(adds), rest, strict=False):
            number += 1
            library[number] = text


def edited(text: str, other: str) -> str:
    """The first half of a text and the second of another."""
    head, tail = text.split(" "), other.split(" ")
    return " ".join(head[: max(2, len(head) // 2)] + tail[len(tail) // 2 :])


def generated() -> tuple[Snapshots, list[str]]:
    """The library after each step and the questions of the definition's practice."""
    from bench.core import data

    ask = tomllib.loads(DEFINITION.read_text(encoding="utf-8"))
    texts = data.make(Path(".cache/bench/data"), ask, needs_vectors=False).texts()
    practice = Practice(texts, ask)
    snapshots = []
    for _ in range(ask["steps"]):
        snapshots.append({number_of(entry.id): entry.text for entry in practice.library.entries})
        practice.step()
    return snapshots, [task.input for task in practice.questions]


def number_of(experience_id: str) -> int:
    """The number in an id."""
    return int(experience_id[1:].partition("-")[0])


class Figures(NamedTuple):
    """Thousands of prompt tokens, and the cached share by number of leaders."""

    asked: float
    shares: tuple[float, ...]

    def bill(self, leaders: int, price: float) -> float:
        """Thousands of uncached tokens, where a cached one costs `price` of one."""
        cached = self.asked * self.shares[leaders]
        return self.asked - cached + price * cached


def measure(priors: Sequence[str], questions: Sequence[str], known: dict[str, int]) -> Figures:
    """The figures of steps whose prompts have these priors."""
    steps: list[list[Prompt]] = []
    for prior in priors:
        prompts = [
            tokens(f"{SYSTEM}\n\n{DEFAULT_HEADING}\n{prior}\n{question}", known) for question in questions
        ]
        steps.append([prompt for prompt in prompts for _ in range(ROLLOUTS)])
    reports = [
        cached_share(
            steps, [[question * ROLLOUTS for question in range(leaders)]] * len(steps) if leaders else ()
        )
        for leaders in LEADERS
    ]
    return Figures(reports[0].prompt_tokens / 1e3, tuple(report.share for report in reports))


def table(snapshots: Snapshots, questions: Sequence[str]) -> Iterator[str]:
    """The rows of one library."""
    known: dict[str, int] = {}
    yield (
        "| prior | prompt tokens | waves: cached | bill 0.26 / 0.1 | a leader: cached | bill 0.26 / 0.1 "
        "| two leaders: cached | bill 0.26 / 0.1 |"
    )
    yield "|---" * 8 + "|"
    forms = {"list": [listed(library) for library in snapshots]}
    for bound in BOUNDS:
        log = Log(bound)
        forms[f"log, {bound:.0%} dead"] = [log.show(library) for library in snapshots]
    for name, priors in forms.items():
        figures = measure(priors, questions, known)
        cells = [name, f"{figures.asked:,.0f}"]
        for leaders in LEADERS:
            cells.append(f"{figures.shares[leaders]:.3f}")
            cells.append(" / ".join(f"{figures.bill(leaders, price):,.0f}" for price in PRICES))
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generated", action="store_true", help="with the practice of the definition")
    options = parser.parse_args()
    libraries = real_libraries()
    if not libraries:
        raise SystemExit("TFGRPO_BENCH_LIBRARIES names no folder with libraries: nothing is measured.")
    cases: dict[str, tuple[Snapshots, list[str]]] = {}
    if options.generated:
        cases["generated practice (4 adds, 2 edits, 1 delete a step)"] = generated()
    for name, texts in libraries.items():
        draw = random.Random(7)
        questions = [" ".join(draw.choice(texts) for _ in range(3)) for _ in range(TASKS)]
        cases[f"{name}, {len(texts)} experiences"] = list(changed(texts, 7)), questions
    lines = ["# The prior as a list and as a log", ""]
    lines += [
        f"    {command}"
        for command in ["TFGRPO_BENCH_LIBRARIES=<folder> python -m bench.core.prior_forms --generated"]
    ]
    lines += [
        "",
        f"{STEPS} steps, {TASKS} tasks × {ROLLOUTS} rollouts, waves of 16, blocks of 16 tokens; thousands of tokens.",
        "",
    ]
    for name, (snapshots, questions) in cases.items():
        lines += [f"## {name}", "", *table(snapshots, questions), ""]
        print("\n".join(lines[-9:]), flush=True)
    RECORD.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
