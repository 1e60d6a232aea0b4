"""`PromptAssembler`: the exact bytes of a prompt."""

from hashlib import sha256

import pytest

from tfgrpo.library import ExperienceLibrary, PromptAssembler
from tfgrpo.types import Message, Operation, OperationKind, PriorRef, Task, TokenPrior

TASK = Task("t1", "What is 2 + 2?", truth="4")


@pytest.fixture
def library() -> ExperienceLibrary:
    learned, _ = ExperienceLibrary.empty().apply(
        [
            Operation(OperationKind.ADD, text=text, index=i)
            for i, text in enumerate(["check units", "read twice"])
        ]
    )
    return learned


def test_system_text_then_prior_then_the_question_alone(library: ExperienceLibrary) -> None:
    assert PromptAssembler(library, system="You do sums.", heading="Learned:").assemble(TASK).chat == [
        {"role": "system", "content": "You do sums.\n\nLearned:\n[E1] check units\n[E2] read twice\n"},
        {"role": "user", "content": "What is 2 + 2?"},
    ]


def test_an_empty_library_adds_nothing() -> None:
    empty = ExperienceLibrary.empty()
    assert PromptAssembler(empty).assemble(TASK).chat == [{"role": "user", "content": "What is 2 + 2?"}]
    assert PromptAssembler(empty, system="You do sums.").messages(TASK) == (
        Message("system", "You do sums."),
        Message("user", "What is 2 + 2?"),
    )


def test_the_prior_says_what_it_is_and_where_it_comes_from(library: ExperienceLibrary) -> None:
    assembler = PromptAssembler(library, token_budget=6, heading="")
    assert assembler.prior == TokenPrior(
        text="[E1] check units\n",
        ids=(library["E1"].id,),
        tokens=6,
        digest=sha256(b"[E1] check units\n").hexdigest(),
        library=PriorRef(1, library.digest),
        stable=17,
    )
    assert assembler.prior is assembler.prior


def test_a_heading_without_room_for_an_experience_is_left_out(library: ExperienceLibrary) -> None:
    assert PromptAssembler(library, token_budget=16).prior.text == ""
