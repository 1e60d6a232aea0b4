"""Data files: what is a task, and what is told about lines that are none."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.dataset import load_dataset
from tfgrpo.errors import DataError
from tfgrpo.types import Task


def load(folder: Path, body: bytes) -> tuple[Task, ...]:
    path = folder / "tasks.jsonl"
    path.write_bytes(body)
    return load_dataset(path, key="data.held_out").tasks


def test_everything_else_is_metadata(tmp_path: Path) -> None:
    tasks = load(
        tmp_path, b'\xef\xbb\xbf{"id": 7, "input": "q", "truth": 3, "topic": "x"}\r\n\n{"id":"b","input":"r"}'
    )
    assert tasks == (Task("7", "q", "3", {"topic": "x"}), Task("b", "r"))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "holds no task"),
        (b"\n \n", "holds no task"),
        (b'{"id": "a"}', "line 1: the record has no 'input'"),
        (b'{"input": "a"}', "line 1: the record has no 'id'"),
        (b'{"id": "a", "input": "x"}\n{"id": "a", "input": "y"}', "line 2: the id 'a' stands twice"),
        (b'{"id": "a", "input": "x"}\n\xff', "line 2: is not UTF-8"),
        (b'{"id": "a", "input": "x"', "line 1: is not valid JSON"),
        (b'["a"]', "line 1: is not a JSON object"),
        (b'{"id": "a", "input": ""}', "'input' must be a non-empty text"),
        (b'{"id": "a", "input": 3}', "'input' must be a non-empty text"),
        (b'{"id": null, "input": "x"}', "'id' must be"),
        (b'{"id": "a", "input": "x", "truth": [1]}', "'truth' must be"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, body: bytes, told: str) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, body)
    assert told in caught.value.message
    assert "tasks.jsonl" in caught.value.message


def test_a_missing_file_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.held_out"):
        load_dataset(tmp_path / "none.jsonl", key="data.held_out")


@given(st.lists(st.text(min_size=1).filter(lambda text: text.strip() != ""), max_size=5, min_size=1))
def test_any_unicode_input_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("data")
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    lines = [orjson.dumps({"id": str(number), "input": text}) for number, text in enumerate(texts)]
    assert [task.input for task in load(folder, b"\n".join(lines))] == texts
