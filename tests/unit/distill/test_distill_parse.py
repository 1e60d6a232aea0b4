"""Replies of the distiller, as models really write them; nothing is lost without a reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.distill.parse import (
    experience_text,
    read_id,
    read_lesson,
    read_operations,
    split_experience,
)
from tfgrpo.errors import DistillError
from tfgrpo.types import DroppedOperation, Operation, OperationKind


def read(value: Any) -> tuple[tuple[Operation, ...], tuple[DroppedOperation, ...]]:
    return read_operations(value, base_version=3, source="s", sources=("t1",), words=12)


@pytest.mark.parametrize(
    ("when", "do", "text"),
    [
        ("a parcel is late", "answer Q2", "When a parcel is late, answer Q2."),
        ("When a parcel is late,", "then answer Q2.", "When a parcel is late, answer Q2."),
        ("If  it\nrains", "stay, and wait", "When it rains, stay; and wait."),
        ("", "check units", "Check units."),
        ("it rains", "", ""),
        ("iffy results", "do it again", "When iffy results, do it again."),
    ],
)
def test_a_lesson_becomes_one_sentence(when: str, do: str, text: str) -> None:
    assert experience_text(when, do) == text


def test_an_experience_splits_where_it_was_joined() -> None:
    text = experience_text("a customer writes about money, cards or refunds", "answer Q7")
    assert split_experience(text) == ("When a customer writes about money, cards or refunds", "answer Q7.")
    assert split_experience("Check units.") == ("", "Check units.")


@pytest.mark.parametrize("shown", ["E3", "[E3]", "e3", "[G3]", "E3.", " E3: ", 3, "3", '"E3"', "E03"])
def test_an_id_is_read_as_displayed(shown: object) -> None:
    assert read_id(shown) == "E3"


def test_an_id_that_is_none_stays_as_it_is_for_the_report() -> None:
    assert read_id("parcel") == "parcel"
    assert read_id("") is None
    assert read_id(None) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("UPDATE", OperationKind.MODIFY),
        ("modify", OperationKind.MODIFY),
        ("none", OperationKind.KEEP),
        ("Remove", OperationKind.DELETE),
        ("MERGE", OperationKind.ADD),
    ],
)
def test_aliases_are_known(name: str, kind: OperationKind) -> None:
    operations, dropped = read([{"operation": name, "id": "[E1]", "text": "When a, b."}])
    assert [operation.kind for operation in operations] == [kind]
    assert dropped == ()


def test_delete_needs_no_text_and_one_object_is_a_list_of_one() -> None:
    for value in ({"operation": "delete", "id": "E1"}, {"operations": {"operation": "DELETE", "id": "E1"}}):
        operations, _ = read(value)
        assert operations == (
            Operation(OperationKind.DELETE, "E1", base_version=3, source="s", sources=("t1",)),
        )


def test_a_merge_names_its_parents() -> None:
    operations, _ = read([{"operation": "MERGE", "merges": ["[E1]", 2], "when": "a", "do": "b"}])
    assert operations[0].parents == ("E1", "E2")
    assert operations[0].text == "When a, b."


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("ADD something", "JSON object"),
        ({"operation": "FROBNICATE", "text": "x"}, "unknown operation FROBNICATE"),
        ({"text": "x"}, "unknown operation"),
        ({"operation": "ADD"}, "needs a text"),
        ({"operation": "ADD", "text": "w " * 13}, "13 words"),
    ],
)
def test_what_cannot_be_read_is_reported_with_its_reason(item: Any, reason: str) -> None:
    operations, dropped = read([{"operation": "ADD", "text": "fine"}, item])
    assert [operation.text for operation in operations] == ["fine"]
    assert len(dropped) == 1
    assert reason in dropped[0].reason


@pytest.mark.parametrize("value", [None, 3, "text", {"advice": "x"}, {"operations": 3}])
def test_a_reply_without_operations_asks_for_repair(value: Any) -> None:
    with pytest.raises(DistillError):
        read(value)


def test_a_lesson_must_be_short_and_say_what_to_do() -> None:
    assert read_lesson({"when": "a", "do": "b"}, 32) == "When a, b."
    assert read_lesson([{"lesson": {"when": "a", "do": "b"}}][0], 32) == "When a, b."
    unreadable: list[Any] = [{"when": "a"}, {"when": "a", "do": " "}, [], "x", {"when": "w " * 40, "do": "b"}]
    for value in unreadable:
        with pytest.raises(DistillError):
            read_lesson(value, 32)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["operation", "id", "text", "when", "do", "operations", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_every_item_is_either_read_or_reported(value: Any) -> None:
    try:
        operations, dropped = read(value)
    except DistillError:
        return
    items = value
    if isinstance(value, dict):
        items = value.get("operations", [value])
    count = len(items) if isinstance(items, list) else 1
    assert len(operations) + len(dropped) == count
    indices = sorted([o.index for o in operations] + [d.operation.index for d in dropped])
    assert indices == list(range(count))
