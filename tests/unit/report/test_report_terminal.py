"""The summary on a terminal: complete, and readable at 60 columns."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from tfgrpo.report.build import Report
from tfgrpo.report.comparison import compare
from tfgrpo.report.result import Cost, Result
from tfgrpo.report.terminal import comparison_lines, money, source_text, summary


def printed(result: Result, width: int) -> list[str]:
    out = io.StringIO()
    summary(result, Console(file=out, width=width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 100])
def test_it_says_the_essential_within_the_width(result: Result, width: int) -> None:
    lines = printed(result, width)
    assert all(len(line) <= width for line in lines)
    assert " ".join(line.strip() for line in lines).startswith(result.sentence)
    row = next(line for line in lines if line.startswith("baseline"))
    assert row.split() == ["baseline", "0.416", "0.366", "to", "0.471", "0.798", "476", "4"]
    for text in ("57 mixed, 57 uniform, 6 undergraded", "$0.4761", "3 model, 1 verifier", "grade: 1"):
        assert any(text in line for line in lines), text


def test_a_single_arm_is_not_called_learned(single: Report) -> None:
    lines = printed(single.result, 60)
    assert any(line.startswith("evaluated") for line in lines)
    assert not any(line.startswith(("learned", "baseline", "groups")) for line in lines)


@pytest.mark.parametrize("width", [60, 100])
def test_three_arms_are_three_rows(three: Report, width: int) -> None:
    lines = printed(three.result, width)
    assert all(len(line) <= width for line in lines)
    rows = [line.split()[0] for line in lines if line.startswith(("baseline", "shuffled ", "learned"))]
    assert rows[:3] == ["baseline", "shuffled", "learned"]
    text = " ".join(line.strip() for line in lines)
    assert text.startswith(three.result.sentence)
    assert f"shuffled against baseline: {three.result.comparisons[0].sentence}" in text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("practice/step=0003/task=t17", "step 3, task t17"),
        ("practice/step=0003/task=a%2Fb/try=0002", "step 3, task a/b, attempt 2"),
        ("gate/step=0012/of=old/task=t1", "gate, step 12, old, task t1"),
        ("3/t17", "3/t17"),
        ("practice/step=x/task=t17", "practice/step=x/task=t17"),
        ("practice", "practice"),
        ("", ""),
        ("a talk with the team", "a talk with the team"),
    ],
)
def test_where_an_experience_comes_from(source: str, text: str) -> None:
    assert source_text(source) == text


def test_markup_in_a_sentence_is_text(result: Result) -> None:
    assert (
        printed(msgspec.structs.replace(result, sentence="[bold]x[/bold]"), 60)[0].strip() == "[bold]x[/bold]"
    )


def cost(**changes: Any) -> Cost:
    counts = {"calls": 1, "input_tokens": 200, "cached_tokens": 0, "cached_share": 0.0, "output_tokens": 1}
    return Cost(**(counts | {"usd": 0.5, "saved_usd": 0.0} | changes))


def test_what_caching_saved_is_told_where_it_saved(result: Result) -> None:
    lines = printed(result, 60)
    assert "tokens: 874,201 in, 75% of them cached; 58,101 out" in lines
    assert "calls: 1,552; cost: $0.4761; caching saved $0.1304" in lines
    usages = msgspec.structs.replace(result.usage, total=cost())
    bare = printed(msgspec.structs.replace(result, usage=usages), 60)
    assert "tokens: 200 in; 1 out" in bare
    assert "calls: 1; cost: $0.5000" in bare


@pytest.mark.parametrize(
    ("usd", "text"), [(None, "no price set"), (0.0, "$0.00"), (0.01234, "$0.0123"), (1234.5, "$1,234.50")]
)
def test_money(usd: float | None, text: str) -> None:
    assert money(cost(usd=usd)) == text


def test_two_runs_compared() -> None:
    lines = comparison_lines(
        compare({"a": [0.0], "b": [1.0], "c": []}, {"a": [1.0], "b": [1.0]}, samples=1), "A", "B"
    )
    assert lines.splitlines()[0].startswith("not distinguishable at n = 2")
    assert "from 0.500  A\nto   1.000  B\n" in lines
    assert lines.endswith("tasks left out, not graded in both runs: 1")
