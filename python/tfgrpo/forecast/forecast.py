"""Walks through a run as the engine would, without sending anything, and adds up its calls and tokens.

Prompts are assembled and counted as the run assembles and its provider counts them. Texts that do not exist yet
are stood in for by so many words.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec
import orjson

from tfgrpo.config import Config
from tfgrpo.distill import Prompts
from tfgrpo.distill.advantage import lesson_schema
from tfgrpo.distill.propose import operations_schema
from tfgrpo.distill.summarize import SHORT
from tfgrpo.engine.practice import plan
from tfgrpo.forecast.guesses import WORDS_USED, Guesses, Range, flat
from tfgrpo.library import DEFAULT_HEADING, ExperienceLibrary, PromptAssembler
from tfgrpo.types import Message, Role, Task

#: Counts the tokens of a prompt.
Count = Callable[[Sequence[Message]], int]

#: Tasks whose prompts are counted, evenly spread; more would only take longer.
SAMPLE = 300
#: The share of groups that the high end asks again for want of graded rollouts.
ASKED_AGAIN = 0.1
#: Tokens that a prompt must share with an earlier one before most providers cache it.
CACHED_FROM = 1024
#: Answers that the embedded server computes at once: the largest group request it takes.
LOCAL_SLOTS = 4
#: Characters a token, at most: whether an answer is surely short enough to need no summary.
CHARACTERS_A_TOKEN = 4


class Sum(msgspec.Struct):
    """What the calls of a phase come to.

    `shared` are the tokens of the input that an earlier prompt of the run had as well: in the low and the high
    course all of them, in the middle one only those that most providers would cache.
    """

    calls: Range = Range()
    input: Range = Range()
    shared: Range = Range()
    output: Range = Range()


class Forecast:
    """One run, imagined in three courses at once: low, middle and high.

    Args:
        config: the configuration.
        practice: the tasks practised on; none for an evaluation.
        held_out: the held-out tasks.
        prompts: the distiller's prompts.
        library: v_0.
        guesses: what cannot be known.
        counts: how each role's prompts are counted.
    """

    def __init__(
        self,
        config: Config,
        practice: Sequence[Task],
        held_out: Sequence[Task],
        prompts: Prompts,
        library: ExperienceLibrary,
        guesses: Guesses,
        counts: Mapping[Role, Count],
    ) -> None:
        self._config, self._practice, self._held_out = config, practice, held_out
        self._prompts, self._library, self._guesses, self._counts = prompts, library, guesses, counts
        self._sums: dict[str, Sum] = defaultdict(Sum)
        self._counted: dict[str, float] = {}  # every step asks for the same prompts again
        self._lesson = filler(round(config.distill.experience_words * WORDS_USED))
        self._entry_line = f"[E12] {self._lesson}\n"
        lines = [f"[E12] {text}\n" for text in guesses.experiences] or [self._entry_line]
        self._entry = _mean([self._text_tokens(Role.ROLLOUT, line) for line in lines])
        self._heading = self._text_tokens(Role.ROLLOUT, DEFAULT_HEADING)

    def run(self) -> dict[str, Sum]:
        """Walk through baseline, practice and evaluation; returns the sums by phase."""
        samples = self._config.evaluation.samples
        entries = flat(len(self._library))
        blocks = Range(1, 1, 1 + ASKED_AGAIN) * len(self._held_out)
        if self._practice:
            self._rollouts("baseline", blocks, samples, self._held_out, entries)
            entries = self._practise(entries)
        self._rollouts("learned", blocks, samples, self._held_out, entries)
        return dict(self._sums)

    # --- the method, step by step ------------------------------------------------------------------------

    def _practise(self, entries: Range) -> Range:
        """All steps; returns how many experiences there are in the end."""
        practice = self._config.practice
        gain = practice.select == "gain"
        start, taught = entries, Range()
        for number, batch in enumerate(plan(self._config, self._practice)):
            groups = len(batch.tasks)
            blocks = Range(1, 1, 1 + ASKED_AGAIN * practice.refills) * groups
            self._rollouts("practice", blocks, practice.group_size, self._practice, entries)
            lessons = teaching = self._guesses.teaching * groups
            taught += teaching
            learned = start + taught * self._guesses.kept[min(number, len(self._guesses.kept) - 1)]
            self._summarize(teaching, entries)
            self._compare(teaching, entries)
            if gain:
                probes = practice.candidates * (1 + min(practice.probe_tasks, groups - 1))
                tried = entries + flat(1)
                self._rollouts("probe", teaching * probes, practice.group_size, self._practice, tried)
                lessons = teaching * Range(0, 0.5, 1)  # the other lessons gain nothing
            self._propose(lessons, entries)
            self._consolidate(lessons, entries)
            if gain:
                settled = practice.consolidate != "none"
                arms = 2 + settled
                likely = 2 * _chance(lessons.middle, 1) + settled * _chance(lessons.middle, 2)
                blocks = Range(0, likely, arms) * min(practice.gate_tasks, len(self._practice))
                # One of the libraries tried is the old one.
                mean = entries * (1 / arms) + learned * (1 - 1 / arms)
                self._rollouts("gate", blocks, practice.gate_samples, self._practice, mean)
            entries = learned
        return entries

    def _summarize(self, groups: Range, entries: Range) -> None:
        calls = groups * self._config.practice.group_size * self._summarized()
        if not calls.high:
            return
        grade = 1.0 if self._config.practice.ground_truth else None
        steps = [Message("assistant", "")]
        bare = self._asked("summarize", _spread(self._practice), steps=steps, grade=grade, experiences="")
        prompt = flat(bare) + self._guesses.output["practice"] + self._prior(entries)
        self._distil("summarize", calls, prompt)

    def _compare(self, groups: Range, entries: Range) -> None:
        practice, output = self._config.practice, self._guesses.output
        attempt = {"text": "", "mark": "RIGHT" if practice.ground_truth else ""}
        attempts = [attempt] * practice.group_size
        schema = lesson_schema(self._config.distill.experience_words)
        tasks = _spread(self._practice)
        bare = self._asked("advantage", tasks, attempts=attempts, experiences="")
        one = self._asked("advantage", tasks[:1], attempts=attempts, experiences=self._entry_line)
        none = self._asked("advantage", tasks[:1], attempts=attempts, experiences="")
        retold = self._summarized()
        shown = output["summarize"] * retold + output["practice"] * (flat(1) - retold)
        prompt = flat(bare) + shown * practice.group_size + self._near(entries, one - none)
        candidates = practice.candidates if practice.select == "gain" else 1
        self._distil("advantage", groups, prompt + self._in_words(Role.DISTILLER, schema), candidates)

    def _propose(self, lessons: Range, entries: Range) -> None:
        if self._config.practice.propose == "add":
            return
        asked = lessons * Range(
            0, entries.middle >= 0.5, entries.high >= 0.5
        )  # an empty library needs no call
        if not asked.high:
            return
        schema = operations_schema(self._config.distill.experience_words)
        bare = self._asked("propose", new=self._lesson, experiences="")
        one = self._asked("propose", new=self._lesson, experiences=self._entry_line)
        prompt = flat(bare) + self._near(entries, one - bare)
        self._distil("propose", asked, prompt + self._in_words(Role.DISTILLER, schema))

    def _consolidate(self, lessons: Range, entries: Range) -> None:
        way = self._config.practice.consolidate
        if way == "none" or lessons.high < 2:
            return
        if way == "strategy":  # one call for lessons of the same strategy: a few of them, or pairs at most
            bare = self._asked("generalize", situations=[self._lesson] * 4, strategy=self._lesson, bound=9)
            self._distil("consolidate", lessons * Range(0, 0.25, 0.5), flat(bare))
            return
        schema = operations_schema(self._config.distill.experience_words)
        proposal = f"ADD {self._lesson}"
        bare = self._asked("consolidate", proposals=[], experiences="")
        each = self._asked("consolidate", proposals=[proposal], experiences="") - bare
        one = self._asked("consolidate", proposals=[], experiences=self._entry_line) - bare
        prompt = flat(bare) + lessons * each + self._near(entries, one)
        output = self._guesses.output["consolidate"]
        if "consolidate" not in self._guesses.input:  # then it is the length of one operation
            longest = self._config.distill.max_tokens
            output = (output * lessons * self._guesses.kept[0]).most(longest)
            output = Range(output.low, output.middle, longest)
        calls = Range(0, _chance(lessons.middle, 2), 1)
        self._distil("consolidate", calls, prompt + self._in_words(Role.DISTILLER, schema), output=output)

    def _summarized(self) -> Range:
        """The share of rollouts that are retold before they are compared."""
        way = self._config.practice.summaries
        if way != "auto":
            return flat(way == "always")
        answer = self._guesses.output["practice"]
        return Range(0, answer.middle * CHARACTERS_A_TOKEN > SHORT, answer.high * CHARACTERS_A_TOKEN > SHORT)

    # --- adding up ---------------------------------------------------------------------------------------

    def _rollouts(self, phase: str, blocks: Range, size: int, tasks: Sequence[Task], entries: Range) -> None:
        """Blocks of `size` answers to one prompt, with a library of so many experiences."""
        prompt, common = self._prompt(tasks, entries)
        calls = blocks * self._requests(Role.ROLLOUT, size)
        leaders = _less_one(blocks)
        followers = calls - blocks
        found = self._sums[phase]
        found.calls += calls
        found.input += calls * prompt
        found.shared += leaders * _cached(common) + followers * _cached(prompt)
        found.output += blocks * size * self._guesses.output[phase]

    def _distil(
        self, phase: str, blocks: Range, prompt: Range, answers: int = 1, output: Range | None = None
    ) -> None:
        """Questions to the distiller; the high course has each of them repaired."""
        if (known := self._guesses.input.get(phase)) is not None:
            prompt = Range(known, known, max(known, prompt.high))
        output = output or self._guesses.output[phase]
        calls = blocks * self._requests(Role.DISTILLER, answers)
        repairs = blocks * Range(0, 0, phase != "summarize")
        found = self._sums[phase]
        found.calls += calls + repairs
        found.input += calls * prompt + repairs * (prompt + output)
        found.output += blocks * answers * output + repairs * output

    def _requests(self, role: Role, answers: int) -> Range:
        """Requests for so many answers to one prompt."""
        endpoint = self._config.model.role(role)
        if endpoint.local is not None:
            return flat(math.ceil(answers / LOCAL_SLOTS))
        if endpoint.group_requests == "never":
            return flat(answers)
        if endpoint.group_requests == "always":
            return flat(1)
        refused = role is Role.ROLLOUT and self._guesses.grouped is False
        return Range(1, answers if refused else 1, answers)

    # --- sizes of prompts --------------------------------------------------------------------------------

    def _prompt(self, tasks: Sequence[Task], entries: Range) -> tuple[Range, Range]:
        """Tokens of a rollout's prompt, and how many of them begin every task's."""
        system = self._config.agent.system
        key = "practice" if tasks is self._practice else "held out"
        if key not in self._counted:
            bare = PromptAssembler(ExperienceLibrary.empty(), system=system)
            count = self._counts[Role.ROLLOUT]
            self._counted[key] = _mean([count(bare.messages(task)) for task in _spread(tasks)])
        prior = self._prior(entries)
        prompt = flat(self._counted[key]) + prior
        if (schema := self._config.agent.response_schema) is not None:
            prompt += self._in_words(Role.ROLLOUT, schema)
        return prompt, prior + flat(self._text_tokens(Role.ROLLOUT, system))

    def _prior(self, entries: Range) -> Range:
        """Tokens of the prior of a library of so many experiences."""

        def size(number: float) -> float:
            if number < 0.5:
                return 0.0
            return min(self._heading + number * self._entry, self._config.practice.library_tokens)

        return Range(size(entries.low), size(entries.middle), size(entries.high))

    def _near(self, entries: Range, line: float) -> Range:
        """Tokens of the experiences that a distiller's prompt shows."""
        return entries.most(self._config.distill.neighbours) * line

    def _asked(self, name: str, tasks: Sequence[Task] = (), **values: object) -> float:
        """Mean tokens of one of the distiller's prompts over tasks, or of one in which no task stands."""
        key = f"{name} {len(tasks)} {values}"
        if (known := self._counted.get(key)) is not None:
            return known
        practice, distill = self._config.practice, self._config.distill
        values |= {
            "objective": practice.learning_objective,
            "lesson": distill.lesson,
            "graded": practice.ground_truth,
            "words": distill.experience_words,
        }
        own: list[dict[str, object]] = [{}]
        if tasks:
            shown = practice.ground_truth
            own = [{"task": task.input, "truth": task.truth if shown else None} for task in tasks]
        count = self._counts[Role.DISTILLER]
        self._counted[key] = _mean([count(self._prompts.render(name, **values, **more)) for more in own])
        return self._counted[key]

    def _in_words(self, role: Role, schema: Mapping[str, object]) -> Range:
        """Tokens of a JSON schema that stands in the prompt: certainly, perhaps, or not."""
        how = self._config.model.role(role).structured
        tokens = 0.0 if how == "json_schema" else self._text_tokens(role, orjson.dumps(schema).decode()) + 20
        return flat(tokens) if how == "prompt" else Range(0, 0, tokens)

    def _text_tokens(self, role: Role, text: str) -> float:
        """Tokens that a text adds to a message."""
        key = f"{role} {text}"
        if key not in self._counted:
            self._counted[key] = self._added(self._counts[role], text)
        return self._counted[key]

    @staticmethod
    def _added(count: Count, text: str) -> float:
        return count([Message("user", f"word {text}")]) - count([Message("user", "word")])


def filler(words: int) -> str:
    """A text of so many words, each of them one token."""
    return " ".join(["word"] * words)


def _chance(mean: float, least: int) -> float:
    """The chance that there are at least one or two lessons where so many are expected (by Poisson)."""
    none = math.exp(-mean)
    return 1 - none * (1 if least == 1 else 1 + mean)


def _cached(tokens: Range) -> Range:
    """What of a shared beginning may be cached: see `Sum.shared`."""
    return Range(tokens.low, tokens.middle if tokens.middle >= CACHED_FROM else 0.0, tokens.high)


def _less_one(blocks: Range) -> Range:
    """All blocks but the first, which finds nothing cached."""
    return Range(max(blocks.low - 1, 0), max(blocks.middle - 1, 0), max(blocks.high - 1, 0))


def _spread(tasks: Sequence[Task]) -> Sequence[Task]:
    """Some of the tasks, evenly spread."""
    return tasks[:: max(1, math.ceil(len(tasks) / SAMPLE))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
