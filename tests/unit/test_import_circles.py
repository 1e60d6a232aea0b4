"""`scripts/import_circles.py`: a circle is found, its absence too, and the tree has none."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_circles", ROOT / "scripts" / "import_circles.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "back",
    [
        "from pack.one import thing",
        "from pack import one",
        "import pack.one",
        "from . import one",
        "from .one import thing",
        "def late() -> None:\n    from pack.one import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.one import thing",
    ],
)
def test_a_circle_of_python_modules_is_found(script: ModuleType, tmp_path: Path, back: str) -> None:
    files = {
        "python/pack/__init__.py": "",
        "python/pack/one.py": "from pack.two import other\nthing = 1\n",
        "python/pack/two.py": f"{back}\nother = 1\n",
        "python/pack/three.py": "from pack import one, two\n",
    }
    assert script.check(tree(tmp_path, files)) == ([["pack.one", "pack.two"]], 4, 0)


@pytest.mark.parametrize(
    "back",
    [
        "use crate::one::Thing;",
        "use super::one::Thing;",
        "use crate::{one::{self, Thing}, three};",
        "pub use super::one as other;",
        "fn late() -> crate::one::Thing { todo!() }",
        "mod inner { use super::super::one::Thing; }",
    ],
)
def test_a_circle_of_rust_modules_is_found(script: ModuleType, tmp_path: Path, back: str) -> None:
    files = {
        "rust/core/src/lib.rs": "mod one;\nmod two;\nmod three;\npub use one::Thing;\n",
        "rust/core/src/one.rs": "use crate::two::Other;\npub struct Thing;\n",
        "rust/core/src/two.rs": f"{back}\npub struct Other;\n",
        "rust/core/src/three.rs": "",
    }
    assert script.check(tree(tmp_path, files)) == ([["crate::one", "crate::two"]], 0, 4)


def test_what_is_no_import_makes_no_circle(script: ModuleType, tmp_path: Path) -> None:
    files = {
        "python/pack/__init__.py": "from pack.one import thing\n",
        "python/pack/one.py": "from pack.two import other\nthing = 'from pack import one'\n",
        "python/pack/two.py": "import os\nother = 1\n",
        "rust/core/src/lib.rs": "pub mod one;\nmod two;\n",
        "rust/core/src/one.rs": "use crate::two::Other;\npub mod leaf;\n",
        "rust/core/src/one/leaf.rs": "",
        "rust/core/src/two.rs": (
            "//! See [`Thing`](crate::one::Thing).\nuse crate::one::leaf::Leaf;\n"
            'const TEXT: &str = "crate::one::Thing";\n'
            "#[cfg(test)]\nmod tests {\n    use crate::one::Thing;\n    fn f() { if true {} }\n}\n"
        ),
    }
    assert script.check(tree(tmp_path, files)) == ([], 3, 4)


def test_the_crates_of_this_tree_have_no_circle(script: ModuleType) -> None:
    found, _, modules = script.check(ROOT, "rust")
    assert not found
    assert modules > 30
