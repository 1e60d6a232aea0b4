"""What the mock provider answers in a practice step: rollouts that differ, summaries, lessons, operations."""

from __future__ import annotations

import json
from typing import Any

#: Stands in every prompt of the distiller and in no rollout, so the server can tell them apart.
OBJECTIVE = "Objective of the bench: solve problems of school mathematics."
TRUTH = "42"
_SITUATIONS = (
    "the question asks for a remainder",
    "two trains leave at different times",
    "a polynomial has integer roots",
    "the figure can be reflected",
    "a recurrence has constant coefficients",
    "probabilities are conditioned on a draw",
    "a sum telescopes",
    "the digits of a number are permuted",
    "an inequality is symmetric in its variables",
    "a lattice path avoids a diagonal",
    "a triangle is inscribed in a circle",
    "units are mixed in the statement",
)
_STRATEGIES = (
    "reduce modulo small primes first",
    "draw the time line and mark the meeting",
    "test divisors of the constant term",
    "fold it and count once",
    "write the characteristic equation",
    "list the cases in a tree",
    "write the first three terms and cancel",
    "count by inclusion and exclusion",
    "assume an order and restore it at the end",
    "reflect the first bad step",
    "use the central angle",
    "convert everything before calculating",
)
_PAIRS = tuple(zip(_SITUATIONS, _STRATEGIES, strict=True))
#: The library before the step, so that proposals have something to stand beside.
KNOWN = tuple(
    f"When {when}, {do}."
    for when, do in (
        ("a diagram is given", "copy it and label every length"),
        ("money is shared", "keep cents as whole numbers"),
        ("an average is changed", "work with the total instead"),
        ("a clock is involved", "measure angles from twelve"),
    )
)


def _operations(*pairs: tuple[str, str]) -> str:
    return json.dumps({"operations": [{"operation": "ADD", "when": when, "do": do} for when, do in pairs]})


#: For the server's `answers`: the first rule whose text stands in the request's body.
ANSWERS: list[dict[str, Any]] = [
    {"contains": '"name":"advantage"', "choices": [json.dumps({"when": w, "do": d}) for w, d in _PAIRS]},
    {"contains": '"name":"propose"', "choices": [_operations(pair) for pair in _PAIRS]},
    {"contains": '"name":"consolidate"', "choices": [_operations(*_PAIRS)]},
    {
        "contains": OBJECTIVE,
        "choices": [
            "1. The attempt wrote down what is given. 2. It chose the unknown and set up one equation. 3. It solved "
            f"the equation, with a slip in line {line}, and stated the result. "
            + "It checked one case by hand. "
            * 12
            for line in range(1, 6)
        ],
    },
    {
        "contains": "",
        "choices": [
            "Let the unknown be x and write what is given. " * 8 + f"So the answer is \\boxed{{{answer}}}."
            for answer in (TRUTH, "41", TRUTH, "40")
        ],
    },
]
