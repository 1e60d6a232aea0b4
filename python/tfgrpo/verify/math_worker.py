r"""The process in which answers in mathematics are compared, run as a script by `tfgrpo.verify.math`.

It imports nothing of tfgrpo. One JSON object a line in, {"truth", "answer", "marked", "seconds"}, and one
out: {"value": 0 or 1, "answer": its text in sympy or null}, or {"error": …} when the truth cannot be read.
math-verify's own timeouts are off: they turn an unfinished comparison into "wrong". The parent owns the
deadline and kills this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
from typing import Any

#: A word of at least three letters that stands alone and is neither a LaTeX command nor a function.
_PROSE = re.compile(r"(?<!\S)(?!(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|max|min)\b)[A-Za-z]{3,}(?=[\s.,:]|$)")

_MEMORY = 4 << 30  # bytes of address space: 9^(9^9) must end here, not the machine
_GRACE = 5  # seconds of processor time beyond the parent's deadline, should the parent be gone


def main() -> None:
    """Answer requests until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints must not reach the parent
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY if hard < 0 else min(_MEMORY, hard), hard))
    import math_verify  # noqa: F401  # slow, and done before READY so that no grading pays for it

    print("READY", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        _limit_processor_time(request["seconds"])
        print(json.dumps(grade(request["truth"], request["answer"], request["marked"])), file=out, flush=True)


def grade(truth: str, answer: str, marked: bool) -> dict[str, Any]:
    r"""Compare an answer with the truth.

    Args:
        truth: LaTeX or plain text, with or without `$` or `\boxed`.
        answer: the whole reply, or only its marked part.
        marked: whether `answer` is the content of a mark, so short and meant as an expression.
    """
    from math_verify import verify

    gold = _parse(truth, marked=True)
    if not gold:
        return {"error": "truth"}
    given = _parse(answer, marked)
    if not given:
        return {"value": 0.0, "answer": None}
    return {"value": float(verify(gold, given, timeout_seconds=None)), "answer": _text(given)}


def _parse(text: str, marked: bool) -> list[Any]:
    """The expression that the text is, or that it ends with: sympy's form and the text, or nothing."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    if marked and not _PROSE.search(text):
        # Boxed, it is read as one LaTeX expression; as it stands, x + 30 would be read as the number 30.
        text = f"\\boxed{{{text.strip().strip('*')}}}"
    found: list[Any] = parse(
        text, [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()], parsing_timeout=None
    )
    return found


def _text(reading: list[Any]) -> str:
    with contextlib.suppress(ValueError):  # an integer beyond Python's limit of digits
        return str(reading[0])
    return str(reading[-1])


def _limit_processor_time(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + _GRACE
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))


if __name__ == "__main__":
    main()
