"""Every type that the glossary names stands in the file that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([^|]+) \| [^|]+ \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)
ROWS = [row for row in ROW.findall((ROOT / "docs" / "GLOSSARY.md").read_text("utf-8")) if ".py" in row[2]]


@pytest.mark.parametrize(("word", "types", "files"), ROWS, ids=[word for word, _, _ in ROWS])
def test_a_word_has_its_type_in_its_file(word: str, types: str, files: str) -> None:
    paths = [ROOT / "python" / "tfgrpo" / name for name in re.findall(r"`([\w/]+\.py)`", files)]
    assert paths
    text = "".join(path.read_text("utf-8") for path in paths)
    names = [part for name in re.findall(r"`([\w.]+)`", types) for part in name.split(".")]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_no_word_stands_for_two_things() -> None:
    words = [word for word, _, _ in ROWS]
    assert len(words) == len(set(words)) > 60
