"""One question to the distiller: rendered, constrained where the server can, parsed, repaired once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from tfgrpo.distill.prompts import Prompts
from tfgrpo.errors import DistillError, TfgrpoError
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.models.structured import StructuredOutputError, parse_json_object
from tfgrpo.types import Choice, Message, ModelReply, ModelRequest

T = TypeVar("T")

#: Sends a request under a key; durability, limits and retries are the dispatcher's.
Send = Callable[[Key, ModelRequest], Awaitable[ModelReply]]

UNREADABLE = (DistillError, StructuredOutputError)


class Asker:
    """Asks the distiller's questions.

    Args:
        send: sends a request under a key.
        prompts: the prompt files in force.
        graded: whether rewards and truths may be shown.
        objective: what is to be learned.
        lesson: the form of a lesson: "strategy" or "answer".
        words: the longest experience.
        neighbours: how many experiences near a text a prompt shows.
        temperature: of every question.
        max_tokens: of every answer.
    """

    def __init__(
        self,
        send: Send,
        prompts: Prompts,
        *,
        graded: bool = True,
        objective: str = "",
        lesson: str = "strategy",
        words: int = 32,
        neighbours: int = 10,
        temperature: float | None = 0.3,
        max_tokens: int | None = 1024,
    ) -> None:
        self._send = send
        self._prompts = prompts
        self._objective = objective
        self._lesson = lesson
        self._neighbours = neighbours
        self._temperature = temperature
        self._max_tokens = max_tokens
        self.graded = graded
        self.words = words

    def near(self, library: ExperienceLibrary, texts: Sequence[str], ids: Iterable[str] = ()) -> str:
        """The experiences that a prompt shows: those nearest to any of the texts, and those with these ids.

        A library of no more than `distill.neighbours` is shown whole, a larger one never.

        Returns:
            One line an experience, led by its label, in id order.
        """
        if len(library) <= self._neighbours:
            found = {entry.id: entry for entry in library}
        else:
            found = {entry.id: entry for entry in library.relevant(texts, self._neighbours)}
            found |= {entry.id: entry for entry in (library[id_] for id_ in ids if id_ in library)}
        ordered = sorted(found.values(), key=lambda entry: entry.number)
        return "".join(f"[{entry.label}] {entry.text}\n" for entry in ordered)

    async def text(self, key: Key, prompt: str, **values: object) -> str:
        """Ask for free text.

        Raises:
            ModelError: the call failed.
        """
        reply = await self._send(key, self._request(prompt, values))
        return reply.choices[0].content.strip()

    async def structured(
        self,
        key: Key,
        prompt: str,
        schema: dict[str, Any],
        read: Callable[[Any], T],
        *,
        n: int = 1,
        **values: object,
    ) -> list[T]:
        """Ask for JSON and read every answer; an unreadable one gets one repair round.

        Args:
            key: of the question; the repair of answer i goes under `key.do("repair", str(i))`.
            prompt: name of the prompt file.
            schema: the JSON schema of the answer.
            read: turns a decoded JSON value into what is wanted; raises DistillError with a reason.
            n: how many answers.
            values: the variables of the prompt.

        Returns:
            What could be read, in the order of the answers: at least one.

        Raises:
            DistillError: no answer could be read, not even after repair.
            ModelError: a call failed.
        """
        request = msgspec.structs.replace(
            self._request(prompt, values), n=n, response_schema=schema, schema_name=prompt
        )
        reply = await self._send(key, request)
        results: list[T] = []
        unreadable: list[tuple[int, Choice, TfgrpoError]] = []
        for index, choice in enumerate(reply.choices):
            try:
                results.append(read(parse_json_object(choice.content)))
            except UNREADABLE as error:
                unreadable.append((index, choice, error))
        if not results:  # one readable answer is enough: a repair costs more than a spare candidate is worth
            index, choice, reason = unreadable[0]
            repaired = await self._send(key.do("repair", str(index)), self._repair(request, choice, reason))
            try:
                results.append(read(parse_json_object(repaired.choices[0].content)))
            except UNREADABLE as error:
                raise DistillError(f"The reply to {key} stayed unreadable: {error.message}") from None
        return results

    def _request(self, prompt: str, values: dict[str, object]) -> ModelRequest:
        messages = self._prompts.render(
            prompt,
            objective=self._objective,
            lesson=self._lesson,
            graded=self.graded,
            words=self.words,
            **values,
        )
        return ModelRequest(messages, temperature=self._temperature, max_tokens=self._max_tokens)

    def _repair(self, request: ModelRequest, choice: Choice, reason: TfgrpoError) -> ModelRequest:
        _, user = self._prompts.render("repair", reason=reason.message)
        said = Message("assistant", choice.content)
        return msgspec.structs.replace(request, messages=(*request.messages, said, user), n=1)
