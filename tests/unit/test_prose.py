"""The public names exist and are documented, and a docstring begins with its subject or an imperative verb."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfgrpo

PACKAGE = Path(tfgrpo.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
RIDDLE = re.compile(r"(What|How|Whether|Which|Who|That)\b")

#: Places that still begin with a riddle. It only ever gets shorter.
ALLOWED = frozenset[str](
    ()
)


def docstrings() -> Iterator[tuple[str, str]]:
    """Every docstring of the package with its place: "room/file.py" or "room/file.py:Class.method"."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        waiting: list[tuple[str, ast.AST]] = [(place, ast.parse(path.read_text("utf-8")))]
        while waiting:
            name, node = waiting.pop()
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if (told := ast.get_docstring(node)) is not None:
                    yield name, told
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                        joint = "." if isinstance(node, ast.ClassDef) else ":"
                        waiting.append((f"{name}{joint}{child.name}", child))


def test_no_docstring_begins_with_a_riddle() -> None:
    riddles = {place for place, told in docstrings() if RIDDLE.match(told)}
    assert sorted(riddles - ALLOWED) == []
    assert sorted(ALLOWED - riddles) == [], "mended: take it off the list"


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_public_name_is_there_and_documented(room: str) -> None:
    module = importlib.import_module(f"tfgrpo.{room}" if room else "tfgrpo")
    assert module.__doc__
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert thing.__doc__, f"{name} says nothing of itself"


def test_what_is_imported_for_users_is_in_all() -> None:
    public = {
        name
        for name, thing in vars(tfgrpo).items()
        if not name.startswith("_") and not inspect.ismodule(thing) and name != "version"
    }
    assert public == set(tfgrpo.__all__)
