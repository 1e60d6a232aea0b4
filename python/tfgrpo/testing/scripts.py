"""Scripts: functions from a request to its answers, and a sample that plays every role of a practice run.

The sample's world: a task's input ends with "(key: 3f2a)", and the right answer is a hash of the key
(`truth_of`). A rollout is right with a probability that rises when experiences stand in the prompt; requests
with a JSON schema get a valid instance; all others get a few words. The request alone decides every answer.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import orjson

from tfgrpo.testing.instances import WORDS, instance_of
from tfgrpo.types import Choice, Message, ModelRequest

#: A script returns `request.n` answers as a sequence, or one answer; then it is asked again for the other
#: choices, as n single requests with the seeds seed, seed + 1, …
Script = Callable[[ModelRequest], "str | Choice | Sequence[str | Choice]"]

CHOICES = ("north", "east", "south", "west")

_KEY = re.compile(r"\(key: (\w+)\)\s*$")
_EXPERIENCE = re.compile(r"^\W*\[?(E\w+)\]", re.MULTILINE)


def fingerprint(request: ModelRequest) -> str:
    """A hash of everything that shapes one answer: messages, sampling, seed, schema, tools; not `n`."""
    single = msgspec.structs.replace(request, n=1)
    return hashlib.sha256(msgspec.json.encode(single, order="sorted")).hexdigest()


def seeded(request: ModelRequest) -> random.Random:
    """A random generator that depends on the request only: two equal requests draw equal numbers."""
    return random.Random(fingerprint(request))


def answers(script: Script, request: ModelRequest) -> tuple[Choice, ...]:
    """The choices of a script for a request.

    Raises:
        ValueError: the script returned another number of answers than `request.n`.
    """
    said = script(request)
    if not isinstance(said, str | Choice):
        choices = tuple(said)
    elif request.n == 1:
        choices = (said,)
    else:
        choices = tuple(_one(script(_single(request, place))) for place in range(request.n))
    if len(choices) != request.n:
        raise ValueError(f"the script gave {len(choices)} answers to a request for {request.n}")
    return tuple(choice if isinstance(choice, Choice) else Choice(choice) for choice in choices)


def _single(request: ModelRequest, place: int) -> ModelRequest:
    return msgspec.structs.replace(request, n=1, seed=(request.seed or 0) + place)


def _one(said: str | Choice | Sequence[str | Choice]) -> str | Choice:
    return said if isinstance(said, str | Choice) else said[0]


def count_tokens(text: str) -> int:
    """The kit's own notion of a token: a word."""
    return len(text.split())


def prompt_tokens(messages: Sequence[Message]) -> int:
    """Words of all messages, at least one."""
    return max(1, sum(count_tokens(message.content) for message in messages))


# --- the sample --------------------------------------------------------------------------------------------


def with_key(text: str, key: int) -> str:
    """A task input of the sample's world, such as `with_key("Where to?", 7)`."""
    return f"{text} (key: {key:04x})"


def truth_of(input: str, choices: Sequence[str] = CHOICES) -> str:  # noqa: A002 - the field's name in Task
    """The right answer to a task input that ends with "(key: …)".

    Raises:
        ValueError: the input carries no key.
    """
    key = _KEY.search(input)
    if key is None:
        raise ValueError(f"no (key: …) at the end of {input[-60:]!r}")
    digest = hashlib.sha256(key.group(1).encode()).digest()
    return choices[int.from_bytes(digest[:4], "big") % len(choices)]


def practice_script(base: float = 0.4, gain: float = 0.3, choices: Sequence[str] = CHOICES) -> Script:
    """A script for a whole practice run.

    Args:
        base: the probability of a right answer without experiences.
        gain: what any experience in the prompt (a line that begins with its id, "[E1] …") adds to it.
        choices: the answers to draw from, and what `truth_of` was asked with; where the request's schema has
            a property with an enum, that enum takes their place.
    """

    def script(request: ModelRequest) -> str:
        rng = seeded(request)
        question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        schema = request.response_schema
        ids = [name for message in request.messages for name in _EXPERIENCE.findall(message.content)]
        if _KEY.search(question) is None:
            if schema is None:
                return " ".join(rng.choice(WORDS) for _ in range(12))
            known = {"id": ids, "target": ids, "experience": ids}
            return orjson.dumps(instance_of(schema, rng, named=known)).decode()
        right = rng.random() < base + (gain if ids else 0.0)
        if schema is None:
            return _answer(question, choices, right, rng)
        return orjson.dumps(_in_schema(question, schema, choices, right, rng)).decode()

    return script


def _answer(question: str, choices: Sequence[str], right: bool, rng: random.Random) -> str:
    truth = truth_of(question, choices)
    wrong = [choice for choice in choices if choice != truth]
    return truth if right or not wrong else rng.choice(wrong)


def _in_schema(
    question: str, schema: dict[str, Any], choices: Sequence[str], right: bool, rng: random.Random
) -> Any:
    """An instance whose property with an enum (else the one called "answer") carries the answer."""
    value = instance_of(schema, rng)
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    for name, inner in properties.items():
        if "enum" in inner:
            return value | {name: _answer(question, inner["enum"], right, rng)}
    if "answer" in properties:
        value["answer"] = _answer(question, choices, right, rng)
    return value


#: The sample as it stands, for `--script tfgrpo.testing.scripts:tickets`.
tickets = practice_script()
