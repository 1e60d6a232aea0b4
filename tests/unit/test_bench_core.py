"""The judge of `bench.core`: a wrong engine must not win, whichever way it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench.core import judge, twins
from bench.core.data import hold_out
from bench.core.definition import Definition, Expect, Gate, read, read_all
from bench.core.protocol import DUPLICATE
from bench.core.scan_bench import ScanBenchError
from bench.core.scan_bench import read as read_scan
from bench.core.table import verdicts
from hypothesis import given
from hypothesis import strategies as st

DEFINITIONS = Path(__file__).parents[2] / "bench" / "core" / "definitions"
# Text 1 is an exact copy of 0, text 3 an edit of 2, text 4 a flipped fact of 2.
PLANTED = [(1, 0, "exact"), (3, 2, "edit"), (4, 2, "flip")]


def test_a_right_answer() -> None:
    for answer in ([0, 0, 2, 2, 4], [0, DUPLICATE, 2, DUPLICATE, 4], [DUPLICATE, 1, DUPLICATE, 3, 4]):
        found = judge.groups(answer, PLANTED)
        assert (found["precision"], found["recall lexical"], found["hard negatives merged"]) == (
            1.0,
            1.0,
            0.0,
        )


def test_dropping_nothing_finds_nothing() -> None:
    found = judge.groups([0, 1, 2, 3, 4], PLANTED)
    assert (found["recall exact"], found["recall edit"], found["dropped"]) == (0.0, 0.0, 0.0)


def test_dropping_everything_is_not_precise() -> None:
    found = judge.groups([DUPLICATE] * 5, PLANTED)
    assert found["precision"] == pytest.approx(2 / 5)
    assert found["hard negatives merged"] == 1.0


def test_a_merged_flip_is_a_wrong_merge_even_if_named() -> None:
    found = judge.groups([0, 0, 2, 2, 2], PLANTED)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["hard negatives merged"] == 1.0


def test_flips_of_all_kinds_count_together() -> None:
    planted = [(1, 0, "flip-number"), (3, 2, "flip-order")]
    found = judge.groups([0, 0, 2, 3], planted)
    assert (found["merged flip-number"], found["merged flip-order"]) == (1.0, 0.0)
    assert found["hard negatives merged"] == 0.5


def test_a_copy_of_the_wrong_text_is_not_found() -> None:
    found = judge.groups([0, 2, 2, 3, 4], PLANTED)
    assert (found["recall exact"], found["precision"]) == (0.0, 0.0)


def test_answers_count_each_kind_and_false_alarms() -> None:
    found = judge.answers(
        ["exact", "edit", "edit", "new", "new"],
        [True, True, False, False, False],
        [True, True, None, True, False],
    )
    assert found == {"found edit": 0.5, "found exact": 1.0, "new called duplicate": 0.5}


def test_held_out_questions_are_gone_and_their_bases_stay() -> None:
    texts = [f"text {number}" for number in range(40)] + [f"copy of {number}" for number in range(10)]
    planted = [(40 + number, number, "exact" if number % 2 else "edit") for number in range(10)]
    kept, left, questions = hold_out(texts, planted, 40, 3, 8, ["exact", "edit"], True)
    assert len(kept) == 40
    assert sorted(question.kind for question in questions) == ["edit"] * 2 + ["exact"] * 2 + ["new"] * 4
    for question in questions:
        assert question.text not in kept
        if question.base >= 0:
            assert question.text == f"copy of {kept[question.base].split()[1]}"
    assert all(kept[index] == f"copy of {kept[base].split()[1]}" for index, base, _ in left)


def definition(*gates: Gate, expect: tuple[Expect, ...] = ()) -> Definition:
    return Definition(
        "d", "d", "near", 3, False, True, ("ours", "rival"), {"query": "µs"}, expect, gates, {}, {}, {}, ""
    )


def test_gates_are_ratios_of_the_same_run() -> None:
    made = definition(
        Gate("query", "rival", 3.0, None), Gate("query", None, None, 9.0), Gate("none", None, 1.0, None)
    )
    rows = verdicts(made, {"ours": {"query": 10.0}, "rival": {"query": 35.0}})["gates"]
    assert [(row["value"], row["reached"]) for row in rows] == [(3.5, True), (10.0, False), (None, None)]


def test_who_answers_wrongly_reaches_no_gate() -> None:
    made = definition(Gate("query", "rival", 3.0, None), expect=(Expect("*", "found exact", 1.0, 1.0),))
    figures = {"ours": {"query": 1.0, "found exact": 0.9}, "rival": {"query": 35.0, "found exact": 1.0}}
    (row,) = verdicts(made, figures)["gates"]
    assert row["reached"] is False


def test_the_definitions_are_read_and_each_engine_has_its_file() -> None:
    engines = DEFINITIONS.parent / "engines"
    for made in read_all(DEFINITIONS):
        assert all((engines / f"{name}.py").exists() for name in made.engines)
        assert {gate.rival for gate in made.gates} - {None} <= set(made.engines)
        assert set(made.only) | set(made.limits) <= set(made.engines)


def test_a_gate_with_an_unknown_word_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        'title = "t"\ndo = "near"\nrounds = 3\nengines = []\n[show]\n[[gate]]\nfigure = "q"\nat_best = 1.0\n'
    )
    with pytest.raises(SystemExit, match="at_best"):
        read(path)


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 12))
def test_the_best_are_those_of_a_stable_sort(distances: list[int], count: int) -> None:
    expected = sorted(range(len(distances)), key=lambda place: distances[place])[:count]
    assert twins.best(np.array(distances, np.int64), count) == expected


@given(st.lists(st.sampled_from("ab c"), max_size=12).map("".join), st.text(max_size=30))
def test_a_key_is_a_fixed_point_and_a_signature_is_of_the_set(a: str, b: str) -> None:
    assert twins.key(twins.key(b)) == twins.key(b)
    assert np.array_equal(twins.minhash(a), twins.minhash(" ".join(a.split())))


PRINTED = """\
rows      scan                  median µs   least µs      GB/s   ratio
10000     floor 256 B                61.3       60.2      41.7    1.00
10000     vectors, 10 (x86-v3)       77.9       75.6      32.9    1.27
1000000   floor 32 B               1140.2     1078.0      28.1    1.00
1000000   floor 256 B             18000.0    17350.2      14.1    1.00
1000000   dots                    18100.4    17366.7      14.0    1.01
1000000   vectors, 10 (scalar)    82190.7    42771.4       3.1    4.57
1000000   vectors, 10 (x86-v4)    19800.0    19217.3      12.9    1.10
"""


def test_the_scan_bench_is_read_for_its_rows() -> None:
    assert read_scan(PRINTED, 1_000_000) == {
        "scan": 19800.0,
        "floor": 18000.0,
        "by floor": 1.10,
        "scan GB/s": 12.9,
        "kind": "x86-v4",
    }
    assert read_scan(PRINTED, 10_000)["by floor"] == 1.27


@pytest.mark.parametrize(
    "printed", ["", PRINTED.replace("floor 256 B", "nothing"), PRINTED.replace(", 10 (", ", 9 (")]
)
def test_a_scan_bench_without_the_rows_has_no_figure(printed: str) -> None:
    with pytest.raises(ScanBenchError, match="1,000,000"):
        read_scan(printed, 1_000_000)


def test_a_twin_packs_what_fits_best_credit_first() -> None:
    lines = ["[E1] a\n", "[E2] b\n", "[E3] c\n"]
    assert twins.pack("H\n", 1, lines, [3, 3, 2], [0.0, 2.0, 1.0], 6) == ["H\n[E2] b\n[E3] c\n", 6]
    assert twins.pack("H\n", 1, lines, [3, 9, 3], [0.0, 2.0, 1.0], 7) == ["H\n[E1] a\n[E3] c\n", 7]


def test_twins_find_copies_and_keep_the_rest() -> None:
    texts = [
        "Use a sieve for the small primes.",
        "use a sieve for the  small primes",
        "Check the units first of all.",
    ]
    assert twins.deduplicate(texts) == [0, 0, 2]
    library = twins.Library().added(texts, len)
    assert (len(library.texts), len(twins.Library().texts)) == (2, 0)
