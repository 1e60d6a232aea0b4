"""The calls of the bench, the same for every engine: a system message of 2 KB, and a question for five calls each."""

from __future__ import annotations

GROUP = 5
MAX_TOKENS = 1024
MODEL = "bench"
_RULES = (
    "Read the whole question before you begin, and say which quantity is asked for.",
    "Name every unknown, write down what is given, and keep exact fractions until the end.",
    "When a count is asked for, list the cases so that none is counted twice.",
    "Check each step against the statement; a step that cannot be checked is a guess.",
    "When two ways lead to the answer, take the shorter one and test it with the other.",
    "Put the final answer alone on the last line, with its unit where there is one.",
)
SYSTEM = "You solve problems of school mathematics.\n" + "\n".join(
    f"[E{number}] When the task is of kind {number}, remember: {_RULES[number % len(_RULES)]}"
    for number in range(1, 17)
)


def question(group: int) -> str:
    """A question; another group has another one."""
    a, b = 17 + group * 31 % 997, 5 + group * 17 % 89
    return (
        f"Problem {group}: a shop sells boxes of {a} nails and bags of {b} screws. Somebody buys three boxes and "
        f"seven bags, gives {a % 7} nails back, and splits the rest evenly among {b % 5 + 2} friends. How many "
        "whole pieces does each friend get, and how many are left over? Show the steps, then the answer."
    )


def messages(index: int) -> list[dict[str, str]]:
    """The messages of one call; five calls share them."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question(index // GROUP)},
    ]


def key(index: int) -> str:
    """A distinct key for each call."""
    return f"bench/{index // GROUP:06}/{index % GROUP:04}"
