"""The laws of the experience library, through the Python facade."""

from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.errors import LibraryError
from tfgrpo.library import ExperienceLibrary, PromptAssembler, count_tokens
from tfgrpo.types import Experience, Operation, OperationKind, Task, label_of

# Few words and ids, so that conflicts are common; any text besides, so that nothing is assumed of it.
TEXTS = st.one_of(
    st.sampled_from(
        ["check units", "Check  UNITS!", "read twice", "تحقق من الوحدات", "🙂🙂 keep calm", "two\nlines"]
    ),
    st.integers(0, 99).map("lesson number {}".format),
    st.text(max_size=20),
)
IDS = st.integers(1, 8).map("E{}".format)
GROUPS = st.sampled_from(["", "a", "b"])
OPERATIONS = st.builds(
    Operation,
    kind=st.sampled_from(OperationKind),
    target=st.none() | IDS | TEXTS,
    text=TEXTS,
    base_version=st.integers(0, 4),
    source=GROUPS,
    index=st.integers(0, 3),
    sources=st.lists(GROUPS, max_size=2).map(tuple),
    parents=st.lists(IDS, max_size=2).map(tuple),
)
BATCHES = st.lists(OPERATIONS, max_size=12)
LIBRARIES = st.lists(BATCHES, max_size=4).map(
    lambda batches: reduce(
        lambda library, batch: library.apply(batch)[0],
        batches,
        # A few that live in any case, for the operations to aim at.
        ExperienceLibrary.empty().apply([add("aim"), add("shoot"), add("score")])[0],
    )
)


def add(text: str) -> Operation:
    return Operation(OperationKind.ADD, text=text)


@given(LIBRARIES, st.lists(IDS, max_size=3))
def test_nothing_and_keep_are_the_identity(library: ExperienceLibrary, ids: list[str]) -> None:
    for batch in ([], [Operation(OperationKind.KEEP, target=id_) for id_ in ids]):
        after, report = library.apply(batch)
        assert (after.version, after.to_json()) == (library.version, library.to_json())
        assert (report.added, report.modified, report.deleted) == ((), (), ())


@given(LIBRARIES, BATCHES, st.data())
def test_any_order_gives_the_same_library_and_report(
    library: ExperienceLibrary, batch: list[Operation], data: st.DataObject
) -> None:
    after, report = library.apply(batch)
    other, same_report = library.apply(data.draw(st.permutations(batch)))
    assert (other.to_json(), same_report) == (after.to_json(), report)


@given(LIBRARIES, BATCHES)
def test_size_and_version_add_up(library: ExperienceLibrary, batch: list[Operation]) -> None:
    after, report = library.apply(batch)
    assert len(after) == len(library) + len(report.added) - len(report.deleted)
    changed = bool(report.added or report.modified or report.deleted)
    assert after.version == library.version + changed
    assert (after == library) is not changed


@given(LIBRARIES, BATCHES)
def test_the_diff_tells_what_the_report_tells(library: ExperienceLibrary, batch: list[Operation]) -> None:
    after, report = library.apply(batch)
    diff = library.diff(after)
    assert (tuple(diff.added), tuple(diff.modified), tuple(diff.deleted)) == (
        report.added,
        report.modified,
        report.deleted,
    )
    assert all(after[key].text == text for key, text in diff.added.items())
    assert all(library[key].text == text for key, text in diff.deleted.items())
    assert all((library[key].text, after[key].text) == texts for key, texts in diff.modified.items())


@given(LIBRARIES)
def test_delete_beats_modify(library: ExperienceLibrary) -> None:
    for entry in library:
        after, report = library.apply(
            [
                Operation(OperationKind.MODIFY, entry.id, "a wording of its own", library.version, "a"),
                Operation(OperationKind.DELETE, entry.id, base_version=library.version, source="z"),
            ]
        )
        assert entry.id not in after
        assert [drop.operation.kind for drop in report.dropped] == [OperationKind.MODIFY]


@given(LIBRARIES)
def test_an_id_is_never_given_again(library: ExperienceLibrary) -> None:
    everything = [
        Operation(OperationKind.DELETE, entry.id, base_version=library.version) for entry in library
    ]
    emptied, _ = library.apply(everything)
    assert len(emptied) == 0
    _, report = emptied.apply([add("a fresh start")])
    (fresh,) = report.added
    born = [entry.number for entry in library]
    assert int(label_of(fresh)[1:]) > max(born, default=0)


@given(BATCHES, BATCHES)
def test_libraries_that_learned_different_lessons_share_no_id(
    batch: list[Operation], other: list[Operation]
) -> None:
    one, two = (ExperienceLibrary.empty().apply(operations)[0] for operations in (batch, other))
    for entry in one:
        if entry.id in two:
            same = two[entry.id]
            assert (same.text, same.sources) == (entry.text, entry.sources)
    again, _ = ExperienceLibrary.empty().apply(batch)
    assert [entry.id for entry in again] == [entry.id for entry in one]


@given(LIBRARIES)
def test_a_label_names_the_entry_of_its_id(library: ExperienceLibrary) -> None:
    version = library.version
    for entry in library:
        assert library[entry.label] == library[entry.id] == entry
        assert entry.label in library
        assert f"{entry.label}-00000000" not in library or entry.id.endswith("-00000000")
        assert library.with_credit({entry.label: 1.0})[entry.id].credit == 1.0
        by_id, by_label = (
            library.apply([Operation(OperationKind.DELETE, name, base_version=version)])[0]
            for name in (entry.id, entry.label)
        )
        assert by_id == by_label
        assert entry.id not in by_id


@given(LIBRARIES, st.floats(allow_nan=False, allow_infinity=False))
def test_a_library_survives_json_and_disk(library: ExperienceLibrary, credit: float) -> None:
    library = library.with_credit({entry.id: credit for entry in library})
    again = ExperienceLibrary.from_json(library.to_json())
    assert (again, again.entries, again.to_json()) == (library, library.entries, library.to_json())
    with TemporaryDirectory() as directory:
        path = Path(directory, "library.json")
        library.save(path)
        assert ExperienceLibrary.load(path).to_json() == path.read_bytes() == library.to_json()
        assert [file.name for file in Path(directory).iterdir()] == ["library.json"]


@given(LIBRARIES, st.text(max_size=30), st.integers(0, 90), st.lists(st.floats(-1, 1), max_size=20))
def test_the_prior_keeps_its_budget(
    library: ExperienceLibrary, heading: str, budget: int, credits_: list[float]
) -> None:
    ids = [entry.id for entry in library]
    library = library.with_credit(dict(zip(ids, credits_, strict=False)))
    prior = PromptAssembler(library, token_budget=budget, heading=heading).prior
    assert prior.tokens == count_tokens(prior.text) <= budget
    assert set(prior.ids) <= set(ids)
    whole = PromptAssembler(library, token_budget=10**6, heading=heading).prior
    assert list(whole.ids) == ids
    assert whole.text.endswith("".join(f"[{entry.label}] {entry.text}\n" for entry in library))


@given(LIBRARIES, st.lists(TEXTS, max_size=4), st.integers(0, 90))
def test_appending_leaves_the_bytes_before_it(
    library: ExperienceLibrary, more: list[str], budget: int
) -> None:
    before = PromptAssembler(library, token_budget=budget).prior
    after = PromptAssembler(library.apply([add(text) for text in more])[0], token_budget=budget).prior
    assert after.text.encode().startswith(before.text.encode())


@given(LIBRARIES, st.text(max_size=20), st.text(max_size=20))
def test_all_prompts_share_everything_but_the_question(
    library: ExperienceLibrary, system: str, question: str
) -> None:
    assembler = PromptAssembler(library, system=system)
    *shared, last = assembler.assemble(Task("t", question)).chat
    assert last == {"role": "user", "content": question}
    assert shared == assembler.assemble(Task("u", "another")).chat[:-1]
    assert [message["role"] for message in shared] == (["system"] if system or len(library) else [])
    for message in shared:
        assert message["content"].startswith(system)
        assert message["content"].endswith(assembler.prior.text)


@given(TEXTS, st.sampled_from(["\0", "\x1b", "\x07", "\x9d"]))
def test_control_characters_are_dropped_with_the_reason(text: str, control: str) -> None:
    library, report = ExperienceLibrary.empty().apply([add(f"x{control}{text}")])
    assert len(library) == 0
    assert f"U+{ord(control):04X}" in report.dropped[0].reason


@given(st.text(max_size=5), st.characters(categories=["Cs"]))
def test_lone_surrogates_are_refused(text: str, surrogate: str) -> None:
    with pytest.raises(LibraryError, match="lone surrogate"):
        ExperienceLibrary.empty().apply([add(text + surrogate)])
    with pytest.raises(LibraryError, match="lone surrogate"):
        _ = PromptAssembler(ExperienceLibrary.empty(), heading=text + surrogate).prior


@given(LIBRARIES)
def test_what_lives_is_one_clean_line_with_its_lineage(library: ExperienceLibrary) -> None:
    for entry in library:
        assert isinstance(entry, Experience)
        assert entry.text == " ".join(entry.text.split()) != ""
        assert entry.history[-1].text == entry.text
        assert entry.history[0].operation is OperationKind.ADD
        assert entry.tokens == count_tokens(f"[{entry.label}] {entry.text}\n")
