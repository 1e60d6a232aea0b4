"""Tolerant reading of what models write."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.models import StructuredOutputError, parse_json_object, parse_structured

texts = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=4)
prose = st.text(st.characters(codec="utf-8", exclude_characters="{}[]`"), max_size=60)


@given(value=objects, before=prose, after=prose, indent=st.sampled_from([None, 2]))
def test_an_object_in_prose_is_found_again(value: Any, before: str, after: str, indent: int | None) -> None:
    assert parse_json_object(before + json.dumps(value, indent=indent) + after) == value


@given(value=values, before=prose, after=prose, tag=st.sampled_from(["json", "JSON", ""]))
def test_any_value_in_a_fence_is_found_again(value: Any, before: str, after: str, tag: str) -> None:
    written = json.dumps(value)
    if "```" not in written:
        assert parse_json_object(f"{before}\n```{tag}\n{written}\n```\n{after}") == value


@given(value=st.dictionaries(texts, values, min_size=1, max_size=4), data=st.data())
def test_a_cut_off_object_is_never_half_read(value: Any, data: st.DataObject) -> None:
    written = json.dumps(value)
    cut = written[: data.draw(st.integers(1, len(written) - 1))]
    with pytest.raises(StructuredOutputError):
        parse_json_object(cut)


@given(st.text(max_size=200) | st.text('{}[]",:\\ `a1\n', max_size=200))
def test_whatever_is_read_can_be_written(text: str) -> None:
    try:
        value = parse_json_object(text)
    except StructuredOutputError:
        return
    assert _huge(value) or orjson.loads(orjson.dumps(value)) == value


def _huge(value: Any) -> bool:
    match value:
        case int():
            return not -(2**63) <= value < 2**64
        case list():
            return any(map(_huge, value))
        case dict():
            return any(map(_huge, value.values()))
        case _:
            return False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1,}', {"a": 1}),
        ('{"a": [1, 2, ], "b": "x,}",}', {"a": [1, 2], "b": "x,}"}),
        ('See [1] and {name}: {"a": 1}', {"a": 1}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('```json\n{"a": 1}', {"a": 1}),
        (r'{"a": "\ud83d"}', {"a": "\ufffd"}),
        ("[1, 2]", [1, 2]),
        ("42", 42),
    ],
)
def test_the_slips_of_small_models(text: str, value: Any) -> None:
    assert parse_json_object(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("I cannot say.", "holds no JSON"),
        ('{"a": [{"b": 1}, {"b"', "cut off"),
        ('{"a": oops, "b": {"c": 1}}', "broken"),
        ('{"a": NaN}', "broken"),
    ],
)
def test_the_error_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(StructuredOutputError, match=says):
        parse_json_object(text)


def test_deep_nesting_and_endless_brackets_end_quickly() -> None:
    for text in ("[" * 100_000, "{" * 100_000, '{"a":' * 50_000, "[" * 50_000 + "]" * 50_000):
        with pytest.raises(StructuredOutputError):
            parse_json_object(text)


class Route(msgspec.Struct, forbid_unknown_fields=True):
    queue: str
    sure: bool = False


def test_the_first_value_of_the_right_form_wins() -> None:
    assert parse_structured('Form {"x": 1}, so {"queue": "Q2"}', Route) == Route("Q2")
    assert parse_structured("```json\n[1, 2]\n```", list[int]) == [1, 2]


def test_a_wrong_form_names_the_place() -> None:
    with pytest.raises(StructuredOutputError, match=r"\$\.queue"):
        parse_structured('{"queue": 3}', Route)
