"""Finding the JSON in what a model wrote: fences, prose around it, trailing commas.

Small models wrap their answer in a ```json block or explain before and after it. Reading is tolerant about
the wrapping and strict about the content: an answer that was cut off is an error, never its first part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import msgspec

from tfgrpo.errors import TfgrpoError

T = TypeVar("T")

_FENCE = re.compile(r"```[\w+-]*[ \t]*\r?\n?(.*?)```", re.DOTALL)
_LOOKS_LIKE_JSON = re.compile(r'\{\s*["}]|\[\s*(?:["\[\]{]|-?\d|true|false|null)')
_SHOWN = 200


class StructuredOutputError(TfgrpoError):
    """A model's answer holds no JSON of the wanted shape; the message can be shown to the model as it is."""


def parse_json_object(text: str) -> Any:
    """The JSON value that a model's answer holds.

    Looked for in this order: the whole text, the content of a fenced block, the first balanced object or
    array in the prose; an object wins over any other value. Single trailing commas and raw line breaks
    inside strings are accepted. Lone surrogates become U+FFFD, so the value can always be encoded again.

    Raises:
        StructuredOutputError: there is no JSON, or it is cut off or broken; the message says which.
    """
    fallback: list[Any] = []
    for value in _candidates(text):
        if isinstance(value, dict):
            return value
        fallback.append(value)
    if fallback:
        return fallback[0]
    raise StructuredOutputError(_what_is_wrong(text))


def parse_structured(text: str, type: type[T]) -> T:  # noqa: A002 - msgspec's own name for it
    """The first JSON value in a model's answer that converts to `type` (any msgspec type).

    Raises:
        StructuredOutputError: nothing fits; the message names the first offending place, ready for a
            repair round.
    """
    problem = ""
    for value in _candidates(text):
        try:
            return msgspec.convert(value, type)
        except msgspec.ValidationError as error:
            problem = problem or f"The JSON in the answer does not have the required form: {error}."
    raise StructuredOutputError(problem or _what_is_wrong(text))


def scrub(value: Any) -> Any:
    """The same JSON value with lone surrogates, which no UTF-8 encoder accepts, replaced by U+FFFD."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [scrub(item) for item in value]
        case dict():
            return {scrub(key): scrub(item) for key, item in value.items()}
        case _:
            return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)


def _candidates(text: str) -> Iterator[Any]:
    """Every reading of the text as JSON, best first."""
    for whole in (text, *_FENCE.findall(text)):
        found, value = _decode(whole.strip())
        if found:
            yield value
    yield from _embedded(text)


def _decode(text: str) -> tuple[bool, Any]:
    """(True, value) when the whole text is one JSON value, perhaps with trailing commas."""
    for form in (text, _without_trailing_commas(text)):
        try:
            value, end = _DECODER.raw_decode(form)
        except (ValueError, RecursionError):
            continue
        if end == len(form):
            return True, scrub(value)
    return False, None


def _embedded(text: str) -> Iterator[Any]:
    """Objects and arrays inside prose, left to right.

    What opens like JSON but does not parse is passed over as a whole: its inner parts are not the answer.
    One that never closes ends the search for the same reason.
    """
    at = 0
    while (start := _next_bracket(text, at)) is not None:
        if _LOOKS_LIKE_JSON.match(text, start) is None:
            at = start + 1
            continue
        end = _balanced_end(text, start)
        if end is None:
            return
        found, value = _decode(text[start:end])
        if found:
            yield value
        at = end


def _next_bracket(text: str, at: int) -> int | None:
    places = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(places, default=None)


def _balanced_end(text: str, start: int) -> int | None:
    """The index just past the bracket that closes the one at `start`; None when it is never closed."""
    depth = 0
    for token in _TOKENS.finditer(text, start):
        match token.group()[0]:
            case "{" | "[":
                depth += 1
            case "}" | "]":
                depth -= 1
                if depth == 0:
                    return token.end()
    return None


#: Strings are one token, so brackets and commas inside them are not seen.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


def _without_trailing_commas(text: str) -> str:
    return _STRING_OR_COMMA.sub(lambda match: match.group(1) or "", text)


def _what_is_wrong(text: str) -> str:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    if not shown:
        return "The answer is empty; it must be one JSON value."
    opening = _LOOKS_LIKE_JSON.search(text)
    if opening is None:
        return f"The answer holds no JSON: {shown}"
    if _balanced_end(text, opening.start()) is None:
        return f"The JSON in the answer is cut off before its end: {shown}"
    return f"The JSON in the answer is broken: {shown}"
