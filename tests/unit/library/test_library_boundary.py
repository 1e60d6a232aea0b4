"""Who may import the Rust module. import-linter cannot say: it sees no compiled modules."""

import ast
from pathlib import Path

import tfgrpo

ROOT = Path(tfgrpo.__file__).parent


def imports_core(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        if any(f"{name}.".startswith("tfgrpo._core.") for name in names):
            return True
    return False


def test_only_the_library_and_admission_import_the_rust_module() -> None:
    importers = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if imports_core(path)}
    assert importers == {"library/__init__.py", "library/experiences.py", "dispatch/admission.py"}
