"""The learned token prior, and the prompt it goes into."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tfgrpo.library.experiences import ExperienceLibrary
from tfgrpo.types import Message, PriorRef, Struct, Task, TokenPrior

DEFAULT_HEADING = "Experience from earlier tasks. Where one of these applies, follow it:"
#: Experiences that each question of a batch may propose for a prior that cannot hold all.
EACH = 48


class Segment(Struct, frozen=True):
    """A stretch of a prompt that changes as a whole.

    `name` is "system" (the agent's instructions: the same for a run), "prior" (the same for a step), "batch"
    (experiences chosen for a batch of questions) or "question"; `tokens` its count by the library's tokenizer.
    """

    name: str
    role: str
    text: str
    tokens: int


class Prompt(Struct, frozen=True):
    """A prompt as segments, the most lasting first: every boundary between them is a place for a cache breakpoint.

    Segments of one role that stand together are one message.
    """

    segments: tuple[Segment, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt as chat messages."""
        messages: list[Message] = []
        for segment in self.segments:
            if messages and messages[-1].role == segment.role:
                messages[-1] = Message(segment.role, messages[-1].content + segment.text)
            else:
                messages.append(Message(segment.role, segment.text))
        return tuple(messages)

    @property
    def chat(self) -> list[dict[str, str]]:
        """`messages` as plain dicts, ready for any chat completions API."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def breakpoints(self) -> tuple[int, ...]:
        """Where a cached prefix may end, in tokens from the start of the prompt: behind all but the last segment.

        The tokens with which a provider frames messages are not counted.
        """
        ends, total = [], 0
        for segment in self.segments[:-1]:
            total += segment.tokens
            ends.append(total)
        return tuple(ends)


class PromptAssembler:
    """Puts a library into the prompt of any chat model.

    The system message is the system text, an empty line, and the prior; the question alone is the user message. So
    all calls of a step share the longest possible prefix, which providers cache.

    The prior is the heading and one line an experience, in id order. The same library gives the same bytes; an
    addition leaves the bytes before it, an edit changes its line in place. With a leader in front a provider computes
    it once a step, and the bill is 4 to 9 % below that of an append-only log; without a leader it is up to 16 % above
    (`bench/record/prior.md`).

    Where the budget does not hold all experiences, the highest credits enter, then the oldest. With a `batch`, half
    of the budget goes by credit, the rest to what is relevant to the batch's questions, in a segment of its own.

    Args:
        library: what was learned.
        token_budget: hard bound of the prior, heading included, in tokens of the library's tokenizer.
        system: the agent's own instructions; not counted against the budget.
        heading: what introduces the experiences; not there when no experience is.
        batch: the questions that will be asked with this prior; their answers are not looked at.
    """

    def __init__(
        self,
        library: ExperienceLibrary,
        token_budget: int = 2000,
        system: str = "",
        heading: str = DEFAULT_HEADING,
        batch: Sequence[Task] = (),
    ) -> None:
        self.library = library
        self.token_budget = token_budget
        self.system = system
        self.heading = heading
        self.batch = tuple(batch)

    @cached_property
    def prior(self) -> TokenPrior:
        """The prior of every prompt of this assembler.

        Raises:
            LibraryError: a text is no Unicode text, or the budget is negative.
        """
        return self._packed[0]

    @cached_property
    def _packed(self) -> tuple[TokenPrior, tuple[Segment, ...]]:
        """The prior, and the segments of the system message."""
        questions = [task.input for task in self.batch]
        text, ids, tokens, digest, (end, stable_tokens) = self.library.pack(
            self.heading, self.token_budget, questions, EACH
        )
        lasting = text[:end]
        library = PriorRef(self.library.version, self.library.digest)
        prior = TokenPrior(text, ids, tokens, digest, library, end)
        system = self.system + ("\n\n" if self.system and text else "")
        segments = (
            Segment("system", "system", system, self.library.count(system)),
            Segment("prior", "system", lasting, stable_tokens),
            Segment("batch", "system", text[end:], tokens - stable_tokens),
        )
        return prior, tuple(segment for segment in segments if segment.text)

    def assemble(self, task: Task) -> Prompt:
        """The prompt for `task`: system text and prior, if there is anything to say in them, then the question.

        Raises:
            LibraryError: a text is no Unicode text, or the budget is negative.
        """
        question = Segment("question", "user", task.input, self.library.count(task.input))
        return Prompt((*self._packed[1], question))

    def messages(self, task: Task) -> tuple[Message, ...]:
        """The prompt for `task` as chat messages, nothing counted."""
        system = "".join(segment.text for segment in self._packed[1])
        question = Message("user", task.input)
        return (Message("system", system), question) if system else (question,)

    def leaders(self, tasks: Sequence[Task], different: int = 1) -> tuple[int, ...]:
        """Which of these prompts to send first, so that the others find the common prefix in the provider's cache.

        Args:
            tasks: one for each prompt, in the order in which they would be sent.
            different: how many different questions the provider has to see before it keeps a common prefix: one
                for most, two for DeepSeek.

        Returns:
            Indices into `tasks`: the first prompts whose questions differ, at most `different` of them.
        """
        first: dict[str, int] = {}
        for index, task in enumerate(tasks):
            if len(first) == different:
                break
            first.setdefault(task.input, index)
        return tuple(first.values())
