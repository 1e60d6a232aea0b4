"""From a reply to the final answer in it, and from an answer to the form in which answers are compared."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

_FENCE = re.compile(r"```[A-Za-z]*\s*\n(.*?)```", re.DOTALL)
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_SPACE = re.compile(r"\s+")
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»"}
_TRAILING = ".,;:!?。、"
_DECODER = json.JSONDecoder()


def final_answer(reply: str, field: str | None) -> str | None:
    r"""The answer that a reply gives.

    With a field: that property of the JSON object in the reply, or None. Without: what the last `\boxed{…}`
    or `<answer>…</answer>` holds, and the whole reply where there is neither.
    """
    if field is not None:
        return _json_field(reply, field)
    marked = marked_answer(reply)
    return reply if marked is None else marked


def marked_answer(reply: str) -> str | None:
    r"""The content of the last `\boxed{…}` (braces balanced) or `<answer>…</answer>`, or None."""
    last: tuple[int, str] | None = None
    for match in _TAG.finditer(reply):
        last = (match.end(), match[1].strip())
    for match in _BOXED.finditer(reply):
        end = _closing_brace(reply, match.end())
        if end is not None and (last is None or end >= last[0]):
            last = (end, reply[match.end() : end].strip())
    if last is None:
        return None
    # A box inside the tag, or a box inside a box: the innermost one is the answer.
    inner = marked_answer(last[1])
    return last[1] if inner is None else inner


def normalise(answer: str) -> str:
    """The form in which answers are compared: a fixed point, so normalising twice changes nothing.

    Unicode NFKC, case folded, runs of whitespace made one space, surrounding quotes and trailing punctuation
    removed. An answer that is nothing but quotes or punctuation keeps them.
    """
    while (next_form := _normalise_once(answer)) != answer:
        answer = next_form
    return answer


def _normalise_once(text: str) -> str:
    text = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    bare = text.rstrip(_TRAILING + " ")
    if len(bare) >= 2 and _QUOTES.get(bare[0]) == bare[-1]:
        bare = bare[1:-1].strip()
    return bare or text


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return None


def _json_field(reply: str, field: str) -> str | None:
    """A property of the first object that has it: the whole reply, fenced blocks, then objects in the text.

    Later blocks and objects come first, because an answer is what a reply ends with. null is no answer.
    """
    for candidate in _json_objects(reply):
        value = candidate.get(field)
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
            # An escaped lone surrogate is valid JSON and no valid text: no file could hold it.
            return text.encode("utf-8", "replace").decode("utf-8")
    return None


def _json_objects(reply: str) -> Iterator[dict[str, Any]]:
    for text in (reply, *reversed(_FENCE.findall(reply))):
        value = _decode(text.strip(), 0)
        if value is not None and value[1] == len(text.strip()):
            yield value[0]
    found = []
    position = reply.find("{")
    while position >= 0:
        value = _decode(reply, position)
        if value is not None:
            found.append(value[0])
        position = reply.find("{", position + 1 if value is None else value[1])
    yield from reversed(found)


def _decode(text: str, position: int) -> tuple[dict[str, Any], int] | None:
    try:
        value, end = _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):  # not JSON here, or nested beyond reason
        return None
    return (value, end) if isinstance(value, dict) else None
