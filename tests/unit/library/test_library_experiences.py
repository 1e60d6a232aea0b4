"""`ExperienceLibrary` as files, and its refusals: each names the place and the remedy."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tfgrpo import _core
from tfgrpo.errors import LibraryError
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import Operation, OperationKind


@pytest.fixture
def library() -> ExperienceLibrary:
    learned, _ = ExperienceLibrary.empty().apply(
        [
            Operation(OperationKind.ADD, text="check units", source="t1"),
            Operation(OperationKind.ADD, text="read twice", source="t2", sources=("t1",)),
        ]
    )
    return learned


def test_the_file_is_readable_and_shows_the_lineage(library: ExperienceLibrary, tmp_path: Path) -> None:
    after, _ = library.apply(
        [Operation(OperationKind.MODIFY, "E2", "read it twice", base_version=1, source="t3")]
    )
    after.save(tmp_path / "v0002.json")
    file = json.loads((tmp_path / "v0002.json").read_text(encoding="utf-8"))
    assert (file["format"], file["format_version"], file["version"], file["next_id"]) == (
        "tfgrpo-library",
        3,
        2,
        3,
    )
    assert file["entries"][1] == {
        "id": "E2-e286a34c",
        "text": "read it twice",
        "sources": ["t1", "t2", "t3"],
        "created": 1,
        "changed": 2,
        "tokens": 7,
        "history": [
            {"version": 1, "operation": "add", "text": "read twice", "sources": ["t1", "t2"]},
            {"version": 2, "operation": "modify", "text": "read it twice", "sources": ["t3"]},
        ],
    }


def test_the_digest_is_sha256_over_netstrings_that_anyone_can_build() -> None:
    def over(*fields: str) -> "hashlib._Hash":
        return hashlib.sha256(b"".join(b"%d:%s" % (len(f.encode()), f.encode()) for f in fields))

    origin = over("1", "sí", "1", "g", "0", "1").hexdigest()
    entry = (f"E1-{origin[:8]}", "sí", "1", "1", "0", "1", "g", "1", "1", "add", "sí", "1", "g")
    leaves = [over(*entry).digest()]
    node = hashlib.sha256((0).to_bytes(8, "big") + len(leaves).to_bytes(8, "big") + b"".join(leaves)).digest()
    root = hashlib.sha256((1).to_bytes(8, "big") * 2 + node).hexdigest()
    library, _ = ExperienceLibrary.empty().apply([Operation(OperationKind.ADD, text="sí", source="g")])
    assert library.digest == over("tfgrpo-library", "3", "1", "2", "1", root).hexdigest()


def test_it_behaves_like_a_collection(library: ExperienceLibrary) -> None:
    assert [entry.id for entry in library] == ["E1-d2c1631d", "E2-e286a34c"]
    assert [(entry.label, entry.number) for entry in library] == [("E1", 1), ("E2", 2)]
    assert "E2" in library
    assert "E2-e286a34c" in library
    assert "E2-d2c1631d" not in library
    assert "E3" not in library
    assert library["E1"] == library["E1-d2c1631d"]
    assert library["E1"].text == "check units"
    with pytest.raises(KeyError):
        library["E3"]
    assert len({library, ExperienceLibrary.from_json(library.to_json()), ExperienceLibrary.empty()}) == 2
    assert ExperienceLibrary.empty(), "an empty library is not a missing one"
    assert library != library.digest


def test_credit_changes_no_identity_but_what_enters_first(library: ExperienceLibrary) -> None:
    credited = library.with_credit({"E2": 0.5})
    assert credited == library
    assert credited["E2"].credit == 0.5
    assert library["E2"].credit == 0.0
    assert library.pack("", 6)[1] == (library["E1"].id,)
    assert credited.pack("", 7)[1] == (library["E2"].id,)


@pytest.mark.parametrize("credit", [{"E9": 1.0}, {"E1": float("nan")}, {"e1": 1.0}])
def test_bad_credit_is_refused(library: ExperienceLibrary, credit: dict[str, float]) -> None:
    with pytest.raises(LibraryError, match=next(iter(credit))):
        library.with_credit(credit)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data.replace(b"check", b"wreck"), "digest"),
        (lambda data: data[:-40], "EOF"),
        (lambda data: b"", "EOF"),
        (lambda data: b"\xff\xfe" + data, "no experience library"),
        (lambda data: data.replace(b'"format_version": 3', b'"format_version": 9'), "format_version 9"),
        (lambda data: data.replace(b'"next_id"', b'"nextid"'), "nextid"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(
    library: ExperienceLibrary, tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "v0001.json"
    path.write_bytes(damage(library.to_json()))
    with pytest.raises(LibraryError, match=said) as caught:
        ExperienceLibrary.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"nowhere\.json: No such file"):
        ExperienceLibrary.load(tmp_path / "nowhere.json")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    library: ExperienceLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "library.json"
    ExperienceLibrary.empty().save(path)
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LibraryError, match="No space left"):
        library.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_directory_says_so(library: ExperienceLibrary, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="directory exists"):
        library.save(tmp_path / "missing" / "library.json")


def test_negative_numbers_are_refused(library: ExperienceLibrary) -> None:
    with pytest.raises(LibraryError, match="no operations"):
        library.apply([Operation(OperationKind.ADD, text="x", index=-1)])
    with pytest.raises(LibraryError, match="budgets and counts start at 0"):
        library.pack("", -1)


def test_the_core_refuses_with_an_error_of_its_own() -> None:
    with pytest.raises(_core.CoreError, match="no operations"):
        _core.Library().apply(b'[{"kind": "UPDATE"}]')
    with pytest.raises(_core.CoreError, match="concurrency"):
        _core.Admission(concurrency=0)
    with pytest.raises(_core.CoreError, match="ticket 7 is not in flight"):
        _core.Admission().done(7, 0.0)
