"""The learned token prior, and the prompt it goes into."""

from __future__ import annotations

from functools import cached_property

from tfgrpo.library.experiences import ExperienceLibrary
from tfgrpo.types import Message, PriorRef, Struct, Task

DEFAULT_HEADING = "Experience from earlier tasks. Where one of these applies, follow it:"


class TokenPrior(Struct, frozen=True):
    """The bytes that shift a frozen model's output, and which library they come from.

    `ids` are the experiences in `text`, in id order; `tokens` the exact o200k count of the whole text;
    `digest` the SHA-256 of its UTF-8 bytes in hexadecimal; `library` the snapshot it was packed from.
    """

    text: str
    ids: tuple[str, ...]
    tokens: int
    digest: str
    library: PriorRef


class PromptAssembler:
    """Puts a library into the prompt of any chat model.

    The system message is the system text, an empty line, and the prior (heading and one line an experience);
    the question alone is the user message. So all calls of a step share the longest possible prefix, which
    providers cache.

    Args:
        library: what was learned.
        token_budget: hard bound of the prior, heading included, in o200k tokens.
        system: the agent's own instructions; not counted against the budget.
        heading: what introduces the experiences; not there when no experience is.
    """

    def __init__(
        self,
        library: ExperienceLibrary,
        token_budget: int = 2000,
        system: str = "",
        heading: str = DEFAULT_HEADING,
    ) -> None:
        self.library = library
        self.token_budget = token_budget
        self.system = system
        self.heading = heading

    @cached_property
    def prior(self) -> TokenPrior:
        """The prior of every prompt of this assembler.

        Raises:
            LibraryError: the heading is no Unicode text, or the budget is negative.
        """
        text, ids, tokens, digest = self.library.pack(self.heading, self.token_budget)
        return TokenPrior(text, ids, tokens, digest, PriorRef(self.library.version, self.library.digest))

    def messages(self, task: Task) -> tuple[Message, ...]:
        """The prompt for `task`: a system message, if there is anything to say in it, then the question."""
        system = "\n\n".join(part for part in (self.system, self.prior.text) if part)
        question = Message("user", task.input)
        return (Message("system", system), question) if system else (question,)

    def assemble(self, task: Task) -> list[dict[str, str]]:
        """`messages` as plain dicts, ready for any chat completions API."""
        return [{"role": message.role, "content": message.content} for message in self.messages(task)]
