"""Print import circles between the modules of the Python package and of the Rust crates; exit 1 if there is one.

    python scripts/import_circles.py [--only python|rust] [ROOT]

A module is a file. Of Python every import counts: inside a function and under `if TYPE_CHECKING` as well. Of Rust
count `use` and paths that begin with `crate::`, `super::` or `self::`, outside comments, strings and `#[cfg(test)]`; a
path leads to the deepest file that it names. `mod x;` says where a file is, and is no import.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Which modules each module imports.
Graph = dict[str, set[str]]


def python_graph(package: Path) -> Graph:
    """The imports between the modules of a Python package."""
    files = {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")])
    }
    graph: Graph = {}
    for module, path in files.items():
        graph[module] = set()
        inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node, inside):
                found = deepest(name.split("."), ".", files)
                if found is not None and found != module:
                    graph[module].add(found)
    return graph


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """The dotted names that an import statement of a module in `package` names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        parents = parts[: len(parts) - node.level + 1] if node.level else []
        base = ".".join([*parents, *filter(None, [node.module])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def rust_graph(source: Path) -> Graph:
    """The imports between the modules of a Rust crate whose `lib.rs` is in `source`; the root is named "crate"."""
    files: dict[str, Path] = {}
    for path in sorted(source.rglob("*.rs")):
        parts = path.relative_to(source).with_suffix("").parts
        parts = parts[:-1] if parts[-1] in {"mod", "lib", "main"} else parts
        files["::".join(("crate", *parts))] = path
    graph: Graph = {}
    for module, path in files.items():
        code = rust_code(path.read_text(encoding="utf-8"))
        children = {child for child in files if child.rpartition("::")[0] == module}
        graph[module] = set()
        for name in _paths(code, module, children):
            found = deepest(name, "::", files)
            if found is not None and found != module:
                graph[module].add(found)
    return graph


def rust_code(text: str) -> str:
    """A Rust file without comments, strings and what is compiled for tests only."""
    text = re.sub(
        r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'',
        lambda match: "\n" if match[0].startswith("/") else '""',
        text,
        flags=re.DOTALL,
    )
    while (marked := re.search(r"#!?\[cfg\(test\)\]", text)) is not None:
        start, end = marked.span()
        body = re.compile(r"[;{]").search(text, end)
        end = len(text) if body is None else body.end() if body[0] == ";" else closing(text, body.start())
        text = text[:start] + text[end:]
    return text


def closing(text: str, opening: int) -> int:
    """The place behind the brace that closes the one at `opening`."""
    depth = 0
    for at in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    return len(text)


def _paths(code: str, module: str, children: set[str]) -> Iterator[list[str]]:
    """The paths from the crate's root that a module names: those of its `use` trees, and those inside code."""
    while (inner := re.search(r"\bmod\s+(\w+)\s*\{", code)) is not None:
        end = closing(code, inner.end() - 1)
        yield from _paths(code[inner.end() : end - 1], f"{module}::{inner[1]}", set())
        code = code[: inner.start()] + code[end:]
    used = [tree for use in re.findall(r"\buse\s+([^;]+);", code) for tree in _leaves(use)]
    written = [match.split("::") for match in re.findall(r"\b(?:crate|super|self)(?:::\w+)+", code)]
    here = module.split("::")
    for path in used + written:
        if path[0] == "crate":
            yield path
        elif path[0] in {"super", "self"}:
            up = path.count("super")
            yield here[: len(here) - up] + [part for part in path if part not in {"super", "self"}]
        elif f"{module}::{path[0]}" in children:
            yield here + path


def _leaves(tree: str) -> Iterator[list[str]]:
    """Each path of a `use` tree: `a::{b, c::d}` is a::b and a::c::d."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        yield [part.strip() for part in re.sub(r"\s+as\s+\w+$", "", tree).split("::") if part.strip()]
        return
    prefix = [part.strip() for part in head.split("::") if part.strip()]
    for inner in _split(rest.rpartition("}")[0]):
        for path in _leaves(inner):
            yield prefix + path


def _split(text: str) -> Iterator[str]:
    """The parts between the commas that stand in no braces."""
    depth, start = 0, 0
    for at, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    if text[start:].strip():
        yield text[start:]


def deepest(parts: Iterable[str], joint: str, files: dict[str, Path]) -> str | None:
    """The module that the longest beginning of a path names."""
    parts = list(parts)
    names = (joint.join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in files), None)


def circles(graph: Graph) -> list[list[str]]:
    """The sets of modules that reach one another, each sorted (Tarjan's strongly connected components)."""
    found: list[list[str]] = []
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in graph:
        if module not in order:
            visit(module)
    return found


def check(root: Path, only: str = "") -> tuple[list[list[str]], int, int]:
    """The circles under a root, and how many modules of Python and of Rust were read; `only` names one of the two."""
    packages = [] if only == "rust" else sorted(root.glob("python/*/__init__.py"))
    crates = [] if only == "python" else sorted(root.glob("rust/*/src/lib.rs"))
    python = [python_graph(package.parent) for package in packages]
    rust = [rust_graph(crate.parent) for crate in crates]
    found = [circle for graph in python + rust for circle in circles(graph)]
    return found, sum(map(len, python)), sum(map(len, rust))


def main() -> int:
    """Check the tree that is named, or the one of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--only", choices=["python", "rust"], default="")
    options = parser.parse_args()
    found, python, rust = check(options.root, options.only)
    for circle in found:
        sys.stdout.write(f"import circle: {', '.join(circle)}\n")
    if not found:
        sys.stdout.write(f"no import circles: {python} Python modules, {rust} Rust modules\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
