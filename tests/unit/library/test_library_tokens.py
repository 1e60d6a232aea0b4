"""Token counts against another implementation: what tiktoken 0.14.0 counts for fuzzed texts, recorded."""

import json
from pathlib import Path

import pytest

from tfgrpo.errors import LibraryError
from tfgrpo.library import ExperienceLibrary, PromptAssembler, count_tokens
from tfgrpo.types import Operation, OperationKind

GOLDEN = Path(__file__).parents[2] / "golden" / "tokens-cl100k.jsonl"


def test_counts_are_those_of_the_reference_tokenizer() -> None:
    lines = [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()]
    assert len(lines) == 400
    wrong = [line["text"] for line in lines if count_tokens(line["text"], "cl100k") != line["tokens"]]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "when it rains " + "take cover and wait, " * 5_000,
        "🙂" * 3_000,
        "إذا كان السؤال طويلا فاقرأه مرتين",
        "x" * 100_000,
    ],
)
def test_no_text_breaks_the_budget(text: str) -> None:
    operations = [Operation(OperationKind.ADD, text=text), Operation(OperationKind.ADD, text="check units")]
    library, report = ExperienceLibrary.empty().apply(operations)
    assert len(report.added) == 2
    for budget in (0, 30, 1_000, 200_000):
        prior = PromptAssembler(library, budget, heading="").prior
        assert prior.tokens == count_tokens(prior.text) <= budget
    assert library.judge(text).neighbours[0].verdict == "duplicate"


def test_nul_and_surrogates_are_refused_by_name() -> None:
    _, report = ExperienceLibrary.empty().apply([Operation(OperationKind.ADD, text="a\0b")])
    assert report.dropped[0].reason == "the text holds the control character U+0000"
    with pytest.raises(LibraryError, match="lone surrogate"):
        ExperienceLibrary.empty().count("\ud83d")
