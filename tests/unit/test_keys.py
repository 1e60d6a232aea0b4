"""Keys: every one prints and parses to itself, sorts by step and index, and knows its owner and group."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.keys import Key, owner_text

#: Any text at all, separators and empty-looking ones included; a lone surrogate is no text.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NUMBER = st.none() | st.integers(0, 20_000)
KEYS = st.builds(
    Key,
    TEXT,
    step=NUMBER,
    variant=st.just("") | TEXT,
    task=st.none() | TEXT,
    index=NUMBER,
    inside=st.lists(TEXT, max_size=3).map(tuple),
)


@given(KEYS)
def test_a_key_prints_and_parses_to_itself(key: Key) -> None:
    parsed = Key.parse(key.text)
    assert parsed == key
    for name in ("phase", "step", "variant", "task", "index", "inside"):
        assert getattr(parsed, name) == getattr(key, name)
    assert key.text.isascii()
    assert key.text.isprintable()
    assert pickle.loads(pickle.dumps(key)) == copy.deepcopy(key) == key  # noqa: S301 - our own
    assert hash(parsed) == hash(key)


@given(KEYS, KEYS)
def test_different_keys_print_differently(one: Key, other: Key) -> None:
    fields = ("phase", "step", "variant", "task", "index", "inside")
    same = all(getattr(one, name) == getattr(other, name) for name in fields)
    assert (one.text == other.text) == same


@given(st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 9_999)), max_size=20))
def test_keys_sort_by_step_and_then_by_index(places: list[tuple[int, int]]) -> None:
    keys = [Key("practice", step, task="t", index=index) for step, index in places]
    assert [(key.step, key.index) for key in sorted(keys)] == sorted(places)


@given(KEYS, st.lists(TEXT, min_size=1, max_size=3))
def test_all_that_an_owner_does_leads_back_to_it(key: Key, inside: list[str]) -> None:
    done = key.do(*inside)
    assert done.owner == key.owner
    assert done.inside == (*key.inside, *inside)
    assert owner_text(done.text) == key.owner.text
    assert key.owner.inside == ()
    assert (key.group.index, key.group.inside) == (None, ())
    assert key.group == done.group
    assert Key.parse(done.text) == done


def test_a_key_is_told_more_closely() -> None:
    key = Key("practice").of(step=3).of(task="t/17").of(index=2)
    assert key.text == "practice/step=0003/task=t%2F17/try=0002"
    assert key.group == Key("practice", 3, task="t/17")
    assert key.do("model", "9f2c", "0").text == "practice/step=0003/task=t%2F17/try=0002//model/9f2c/0"


def test_seeds_follow_from_seed_and_key() -> None:
    key = Key("practice", 1, task="t", index=0)
    assert key.seed(0) == Key.parse(key.text).seed(0)
    assert len({key.seed(0), key.seed(1), key.of(index=1).seed(0)}) == 3
    assert 0 <= key.seed(0) < 2**31


@pytest.mark.parametrize(
    "text",
    ["", "/step=0001", "practice/step=1", "practice/nothing", "practice//", "practice/step=-001", "a b"],
)
def test_what_no_key_prints_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"no key|invalid literal"):
        Key.parse(text)


@pytest.mark.parametrize(
    "arguments", [{"phase": ""}, {"phase": "p", "step": -1}, {"phase": "p", "index": -1}]
)
def test_what_is_no_identity_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no key"):
        Key(**arguments)  # type: ignore[arg-type]


def test_a_key_is_frozen() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Key("p").phase = "q"  # type: ignore[misc]
