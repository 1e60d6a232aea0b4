"""The public names exist and are documented, and a docstring begins with its subject or an imperative verb."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfgrpo

PACKAGE = Path(tfgrpo.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
RIDDLE = re.compile(r"(What|How|Whether|Which|Who|That)\b")

#: How many of a file's public docstrings still begin with a riddle. These numbers only ever get smaller.
ALLOWED: dict[str, int] = {
    "cli/app.py": 2,
    "cli/terminal.py": 2,
    "dispatch/calls.py": 2,
    "dispatch/prefix.py": 3,
    "dispatch/priority.py": 1,
    "dispatch/provider.py": 2,
    "dispatch/retry.py": 2,
    "distill/parse.py": 1,
    "distill/summarize.py": 1,
    "engine/context.py": 2,
    "engine/gate.py": 2,
    "engine/group.py": 2,
    "engine/plan.py": 4,
    "engine/records.py": 2,
    "forecast/chances.py": 2,
    "journal/blobs.py": 1,
    "journal/codec.py": 1,
    "journal/disk.py": 4,
    "journal/effects.py": 2,
    "journal/journal.py": 4,
    "journal/memory.py": 3,
    "journal/reader.py": 3,
    "journal/rowreader.py": 1,
    "journal/rows.py": 2,
    "journal/salvage.py": 2,
    "journal/schema.py": 1,
    "journal/writer.py": 2,
    "library/experiences.py": 5,
    "library/prior.py": 1,
    "library/similar.py": 2,
    "protocols.py": 4,
    "report/records.py": 3,
    "report/result.py": 3,
    "run/build.py": 1,
    "run/reading.py": 2,
    "run/session.py": 2,
    "run/stop.py": 2,
}


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
    riddles: dict[str, list[str]] = defaultdict(list)
    for place, told in docstrings():
        path, _, name = place.partition(":")
        private = any(part.startswith("_") for part in name.split("."))
        if RIDDLE.match(told) and not private:
            riddles[path].append(place)
    assert [places for path, places in riddles.items() if len(places) > ALLOWED.get(path, 0)] == []


def documented(thing: object, name: str) -> bool:
    """Whether a class or function has a docstring, a compiled one at least in the stub."""
    stub = ast.parse((PACKAGE / "_core.pyi").read_text("utf-8"))
    told = {
        node.name: ast.get_docstring(node)
        for node in stub.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    return bool(thing.__doc__ or told.get(name))


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_public_name_is_there_and_documented(room: str) -> None:
    module = importlib.import_module(f"tfgrpo.{room}" if room else "tfgrpo")
    assert module.__doc__
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert documented(thing, name), f"{name} says nothing of itself"


def test_what_is_imported_for_users_is_in_all() -> None:
    public = {
        name
        for name, thing in vars(tfgrpo).items()
        if not name.startswith("_") and not inspect.ismodule(thing) and name != "version"
    }
    assert public == set(tfgrpo.__all__)
