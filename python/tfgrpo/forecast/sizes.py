"""The tokens of prompts, assembled and counted as a run assembles them; texts yet to come are so many words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import orjson

from tfgrpo.distill.advantage import lesson_schema
from tfgrpo.distill.propose import operations_schema
from tfgrpo.engine.plan import Work
from tfgrpo.forecast.facts import Count, Facts
from tfgrpo.forecast.guesses import WORDS_USED, Guesses
from tfgrpo.forecast.ranges import Range, around, flat
from tfgrpo.library import (
    DEFAULT_HEADING,
    ExperienceLibrary,
    PromptAssembler,
    count_tokens,
    tokenizer_for_model,
)
from tfgrpo.types import Message, Role, Task

#: Tasks whose prompts are counted, evenly spread; more would only take longer.
SAMPLE = 300
#: Tokens with which providers frame each message, roughly.
FRAME = 4


class Sizes:
    """The sizes of one run's prompts.

    Args:
        facts: about the run.
        guesses: the lengths of texts.
        counts: how each role's prompts are counted.
    """

    def __init__(self, facts: Facts, guesses: Guesses, counts: Mapping[Role, Count]) -> None:
        self._facts, self._guesses, self._counts = facts, guesses, counts
        self._counted: dict[str, float] = {}  # every step asks for the same prompts again
        self._lesson = " ".join(["word"] * round(facts.distill.words * WORDS_USED))
        self._line = f"[E12] {self._lesson}\n"
        lines = [f"[E12] {text}\n" for text in guesses.experiences] or [self._line]
        self._entry = _mean([self._added(Role.ROLLOUT, line) for line in lines])
        self._heading = self._added(Role.ROLLOUT, DEFAULT_HEADING)

    # --- attempts ----------------------------------------------------------------------------------------

    def attempt(self, work: Work, entries: Range) -> tuple[Range, Range]:
        """Tokens of a prompt of an attempt, and how many of them begin every task's."""
        prior, system = self._prior(entries), self._facts.method.system
        common = prior + flat(self._added(Role.ROLLOUT, system))
        cost = self._guesses.costs[work.phase]
        if cost.input is not None:  # everything but the prior is as it was
            own = around(max(cost.input - self._prior(flat(cost.entries)).middle, 0.0))
            return own + prior, common.most(cost.input)
        key = "held out" if work.step is None else "practice"
        if key not in self._counted:
            bare = PromptAssembler(ExperienceLibrary.empty(), system=system)
            tasks = self._facts.held_out if work.step is None else self._facts.practice
            count = self._counts[Role.ROLLOUT]
            self._counted[key] = _mean([count(bare.messages(task)) for task in _spread(tasks)])
        prompt = flat(self._counted[key]) + prior
        if (schema := self._facts.agent.response_schema) is not None:
            prompt += self._in_words(Role.ROLLOUT, schema)
        return prompt, common

    def _prior(self, entries: Range) -> Range:
        """Tokens of the prior of a library of so many experiences."""

        def size(number: float) -> float:
            if number < 0.5:
                return 0.0
            return min(self._heading + number * self._entry, self._facts.method.library_tokens)

        return Range(size(entries.low), size(entries.middle), size(entries.high))

    # --- questions ---------------------------------------------------------------------------------------

    def question(self, work: Work, entries: Range, lessons: Range, retold: Range) -> Range:
        """Tokens of a question to the distiller.

        Args:
            work: the question.
            entries: experiences in the library.
            lessons: of the step.
            retold: the share of attempts that are shown as summaries.
        """
        match work.phase:
            case "summarize":
                found = self._summarize(entries)
            case "advantage":
                found = self._advantage(entries, retold)
            case "propose":
                found = self._propose(entries)
            case _:
                found = self._consolidate(entries, lessons)
        if (known := self._guesses.costs[work.phase].input) is not None:
            return Range(known, known, max(known, found.high))
        return found

    def _summarize(self, entries: Range) -> Range:
        grade = 1.0 if self._facts.method.ground_truth else None
        steps = [Message("assistant", "")]
        bare = self._asked(
            "summarize", _spread(self._facts.practice), steps=steps, grade=grade, experiences=""
        )
        return flat(bare) + self._guesses.answer + self._prior(entries)

    def _advantage(self, entries: Range, retold: Range) -> Range:
        size = self._facts.method.group_size
        attempts = [{"text": "", "mark": "RIGHT" if self._facts.method.ground_truth else ""}] * size
        tasks = _spread(self._facts.practice)
        bare = self._asked("advantage", tasks, attempts=attempts, experiences="")
        one = self._asked("advantage", tasks[:1], attempts=attempts, experiences=self._line)
        none = self._asked("advantage", tasks[:1], attempts=attempts, experiences="")
        summary = self._guesses.costs["summarize"].output
        shown = summary * retold + self._guesses.answer * (flat(1) - retold)
        schema = lesson_schema(self._facts.distill.words)
        prompt = flat(bare) + shown * size + self._near(entries, one - none)
        return prompt + self._in_words(Role.DISTILLER, schema)

    def _propose(self, entries: Range) -> Range:
        bare = self._asked("propose", new=self._lesson, experiences="")
        one = self._asked("propose", new=self._lesson, experiences=self._line)
        schema = operations_schema(self._facts.distill.words)
        return flat(bare) + self._near(entries, one - bare) + self._in_words(Role.DISTILLER, schema)

    def _consolidate(self, entries: Range, lessons: Range) -> Range:
        if self._facts.method.consolidate == "strategy":  # a few lessons of one strategy
            return flat(
                self._asked("generalize", situations=[self._lesson] * 4, strategy=self._lesson, bound=9)
            )
        bare = self._asked("consolidate", proposals=[], experiences="")
        each = self._asked("consolidate", proposals=[f"ADD {self._lesson}"], experiences="") - bare
        one = self._asked("consolidate", proposals=[], experiences=self._line) - bare
        schema = operations_schema(self._facts.distill.words)
        prompt = flat(bare) + lessons * each + self._near(entries, one)
        return prompt + self._in_words(Role.DISTILLER, schema)

    # --- counting ----------------------------------------------------------------------------------------

    def _near(self, entries: Range, line: float) -> Range:
        """Tokens of the experiences that a distiller's prompt shows."""
        return entries.most(self._facts.distill.neighbours) * line

    def _asked(self, name: str, tasks: Sequence[Task] = (), **values: object) -> float:
        """Mean tokens of one of the distiller's prompts over tasks, or of one in which no task stands."""
        key = f"{name} {len(tasks)} {values}"
        if (known := self._counted.get(key)) is not None:
            return known
        method, distill = self._facts.method, self._facts.distill
        values |= {
            "objective": distill.objective,
            "lesson": distill.lesson,
            "graded": method.ground_truth,
            "words": distill.words,
        }
        own: list[dict[str, object]] = [{}]
        if tasks:
            shown = method.ground_truth
            own = [{"task": task.input, "truth": task.truth if shown else None} for task in tasks]
        count = self._counts[Role.DISTILLER]
        self._counted[key] = _mean([count(distill.prompts.render(name, **values, **more)) for more in own])
        return self._counted[key]

    def _in_words(self, role: Role, schema: Mapping[str, object]) -> Range:
        """Tokens of a JSON schema that stands in the prompt: certainly, perhaps, or not."""
        how = self._facts.models[role].structured
        tokens = 0.0 if how == "json_schema" else self._added(role, orjson.dumps(schema).decode()) + 20
        return flat(tokens) if how == "prompt" else Range(0, 0, tokens)

    def _added(self, role: Role, text: str) -> float:
        """Tokens that a text adds to a message."""
        key = f"{role} {text}"
        if key not in self._counted:
            count = self._counts[role]
            with_it, without = [Message("user", f"word {text}")], [Message("user", "word")]
            self._counted[key] = count(with_it) - count(without)
        return self._counted[key]


def message_count(model: str) -> Count:
    """Make a counter of prompts by the tokenizer of a model (o200k where it is not bundled), framing included."""
    tokenizer = tokenizer_for_model(model)

    def count(messages: Sequence[Message]) -> int:
        return sum(count_tokens(message.content, tokenizer) + FRAME for message in messages)

    return count


def _spread(tasks: Sequence[Task]) -> Sequence[Task]:
    """Some of the tasks, evenly spread."""
    return tasks[:: max(1, math.ceil(len(tasks) / SAMPLE))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
