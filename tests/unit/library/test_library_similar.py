"""Neighbours, verdicts, duplicates, other embedders and the index, through the Python facade."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.errors import LibraryError
from tfgrpo.library import ExperienceLibrary, PromptAssembler, Verdict, count_tokens, tokenizer_for_model
from tfgrpo.library.similar import Vectors
from tfgrpo.types import Operation, OperationKind, Task

LESSONS = [
    "When a sum has units, check the units at the end.",
    "When a page does not load, try the archived copy.",
    "When the list is long, sort it in ascending order before searching.",
    "When a customer asks for a refund, answer Q7.",
]


def holding(texts: Sequence[str]) -> ExperienceLibrary:
    operations = [Operation(OperationKind.ADD, text=text, index=i) for i, text in enumerate(texts)]
    return ExperienceLibrary.empty().apply(operations)[0]


@pytest.fixture(scope="module")
def library() -> ExperienceLibrary:
    return holding(LESSONS)


@pytest.mark.parametrize(
    ("text", "verdict", "nearest"),
    [
        ("when a sum has units check the UNITS at the end", Verdict.DUPLICATE, "E1"),
        ("When a sum has units, chekc the units at the end.", Verdict.DUPLICATE, "E1"),
        ("When a sum has units, never check the units at the end.", Verdict.CONFLICT, "E1"),
        ("When the list is long, sort it in descending order before searching.", Verdict.CONFLICT, "E3"),
        ("When a customer asks for a refund, answer Q4.", Verdict.CONFLICT, "E4"),
        ("A volcano erupts.", Verdict.NEW, None),
    ],
)
def test_the_guard_tells_what_a_text_is(
    library: ExperienceLibrary, text: str, verdict: Verdict, nearest: str | None
) -> None:
    judgement = library.judge(text)
    assert judgement.verdict is verdict
    if nearest is not None:
        assert judgement.neighbours[0].id == library[nearest].id
        assert bool(judgement.neighbours[0].differences) is (verdict is Verdict.CONFLICT)


def test_the_differing_words_are_named(library: ExperienceLibrary) -> None:
    (difference,) = library.neighbours("When a customer asks for a refund, answer Q4.", 1)[0].differences
    assert (difference.kind, difference.left, difference.right) == ("number", "q7", "q4")


def test_k_bounds_the_neighbours_and_not_the_verdict(library: ExperienceLibrary) -> None:
    for k in range(6):
        judgement = library.judge(LESSONS[1], k)
        assert len(judgement.neighbours) == min(k, len(LESSONS))
        assert judgement.verdict is Verdict.DUPLICATE
    with pytest.raises(LibraryError, match="start at 0"):
        library.neighbours("x", -1)
    with pytest.raises(LibraryError, match="lone surrogate"):
        library.neighbours("\ud800")
    assert ExperienceLibrary.empty().judge("anything at all").verdict is Verdict.NEW


def test_a_near_duplicate_is_not_added_twice(library: ExperienceLibrary) -> None:
    again = Operation(OperationKind.ADD, text="When the page does not load, try the archived copy")
    after, report = library.apply([again])
    assert after == library
    assert report.dropped[0].reason == f"its text duplicates {library['E2'].id}"
    flipped = Operation(OperationKind.ADD, text="When a page does load, try the archived copy.")
    after, report = library.apply([flipped])
    assert report.added == (after["E5"].id,)


def test_duplicates_of_a_batch_name_what_they_repeat(library: ExperienceLibrary) -> None:
    texts = ["Draw a figure.", LESSONS[2].upper(), "draw a figure", "Draw two figures.", "Draw a figure!"]
    found = [(d.index, d.experience, d.text) for d in library.deduplicate(texts)]
    assert found == [(1, library["E3"].id, None), (2, None, 0), (4, None, 0)]
    assert library.deduplicate([]) == ()
    with pytest.raises(LibraryError, match="lone surrogate"):
        library.deduplicate(["fine", "\udfff"])


@given(st.lists(st.text(max_size=30), max_size=12))
def test_any_texts_can_be_deduplicated(texts: list[str]) -> None:
    found = {d.index: d.text for d in ExperienceLibrary.empty().deduplicate(texts)}
    for index, earlier in found.items():
        assert earlier is not None
        assert earlier < index
        assert earlier not in found


class Letters:
    """Vectors by the first letter: a, b, or neither."""

    dimensions = 3

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        first = [text[:1].casefold() for text in texts]
        return np.array([[f == "a", f == "b", f not in ("a", "b")] for f in first], np.float32)


def test_an_embedder_of_ones_own_makes_the_vectors() -> None:
    letters = Letters()
    library = holding(["apples are red", "bananas are yellow"]).with_embedder(letters)
    assert library == holding(["apples are red", "bananas are yellow"])
    assert library.neighbours("avocado", 1)[0].id == library["E1"].id
    assert library.neighbours("blackberry", 1)[0].id == library["E2"].id
    grown, _ = library.apply([Operation(OperationKind.ADD, text="cherries are red as well")])
    assert grown.neighbours("zucchini", 1)[0].id == grown["E3"].id
    assert [entry.label for entry in grown.relevant(["be", "zoo"], 1)] == ["E2", "E3"]
    assert "cherries are red as well" in letters.asked
    assert grown.with_embedder(None).neighbours("yellow bananas", 1)[0].id == grown["E2"].id


@pytest.mark.parametrize(
    ("rows", "said"),
    [(np.zeros((1, 3)), "shape"), (np.full((2, 3), np.nan), "finite"), (np.zeros(6), "shape")],
)
def test_vectors_of_the_wrong_form_are_refused(rows: Vectors, said: str) -> None:
    class Wrong:
        dimensions = 3

        def embed(self, texts: Sequence[str]) -> Vectors:
            return rows

    with pytest.raises(LibraryError, match=said):
        holding(["apples", "bananas"]).with_embedder(Wrong())


def test_a_saved_index_opens_the_same_library_and_damage_is_told(tmp_path: Path) -> None:
    library = holding([f"lesson {n} is about the matter {n * 7}" for n in range(300)])
    path = tmp_path / "v1.json"
    library.save(path, index=True)
    opened = ExperienceLibrary.load(path)
    assert opened == library
    assert opened.neighbours("lesson 7 is about the matter 50") == library.neighbours(
        "lesson 7 is about the matter 50"
    )
    index = path.with_name("v1.json.index")
    damaged = bytearray(index.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    index.write_bytes(damaged)
    with pytest.raises(LibraryError, match=r"v1\.json: its index.*damaged; delete that file"):
        ExperienceLibrary.load(path)
    # One of another version is passed over.
    holding(["another"]).save(tmp_path / "other.json", index=True)
    (tmp_path / "other.json.index").replace(index)
    assert ExperienceLibrary.load(path) == library
    index.write_bytes(b"")
    assert ExperienceLibrary.load(path) == library


def test_tokens_are_those_of_the_model_where_they_are_known(library: ExperienceLibrary) -> None:
    older = library.with_tokenizer(tokenizer_for_model("gpt-4-turbo"))
    assert (older.tokenizer, library.tokenizer) == ("cl100k", "o200k")
    assert older == library
    for entry in older:
        assert entry.tokens == count_tokens(f"[{entry.label}] {entry.text}\n", "cl100k")
    assert ExperienceLibrary.from_json(older.to_json()).tokenizer == "cl100k"
    with pytest.raises(LibraryError, match="no tokenizer"):
        library.with_tokenizer("words")


def test_a_prior_too_small_for_all_has_a_part_for_the_batch() -> None:
    texts = [f"When it is about {thing}, look at the {thing} first." for thing in ("tea", "ships", "wool")]
    filler = [f"When rule number {n} is asked for, name rule number {n}." for n in range(40)]
    library = holding(filler + texts)
    questions = [Task("q1", "How long does tea have to draw?"), Task("q2", "How fast are ships?")]
    prompt = PromptAssembler(library, 200, "You answer.", batch=questions).assemble(questions[0])
    assert [segment.name for segment in prompt.segments] == ["system", "prior", "batch", "question"]
    _, lasting, chosen, _ = prompt.segments
    assert "about tea" in chosen.text
    assert "about ships" in chosen.text
    other = PromptAssembler(library, 200, "You answer.", batch=[Task("q3", "Is wool warm?")])
    assert other.assemble(questions[0]).segments[1] == lasting
    assert lasting.tokens + chosen.tokens == other.library.count(lasting.text + chosen.text) <= 200
    assert prompt.breakpoints[-1] == sum(segment.tokens for segment in prompt.segments[:-1])


def test_leaders_are_the_first_prompts_with_different_questions(library: ExperienceLibrary) -> None:
    assembler = PromptAssembler(library)
    tasks = [Task("a", "x"), Task("a2", "x"), Task("b", "y"), Task("c", "z")]
    assert assembler.leaders(tasks) == (0,)
    assert assembler.leaders(tasks, different=2) == (0, 2)
    assert assembler.leaders(tasks[:2], different=2) == (0,)
    assert assembler.leaders([]) == ()
