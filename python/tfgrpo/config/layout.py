"""The layout of a configuration file: everyday keys in their tables, all others under `[expert]`.

A layer (a file, the environment, the flags) is read into values by key path, whatever the spelling; a key in the
wrong place and a key that does not exist each become a sentence that says where the key goes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from tfgrpo.config.marks import EXPERT, KeyPath, Section, table_of
from tfgrpo.config.root import SETTINGS, Config

#: Every table by its path, and if it has an everyday key.
TABLES: Mapping[KeyPath, bool] = {
    path[:depth]: any(each.everyday for other, each in SETTINGS.items() if other[:depth] == path[:depth])
    for path in SETTINGS
    for depth in range(1, len(path))
}

#: The tables of single roles, which exist only where they are set.
ROLE_TABLES = {path for path, everyday in TABLES.items() if len(path) == 2 and not everyday}


def read_layer(body: Mapping[str, Any], *, strict: bool) -> tuple[dict[KeyPath, Any], list[str]]:
    """Read a tree of tables.

    Args:
        body: the tree, as TOML gives it.
        strict: refuse a key in the wrong place, as for a file; otherwise both spellings are accepted.

    Returns:
        The values by key path, and a sentence for every key that is wrong.
    """
    values: dict[KeyPath, Any] = {}
    problems: list[str] = []
    everyday = {key: value for key, value in body.items() if key != EXPERT}
    for tables, expert in ((everyday, False), (body.get(EXPERT, {}), True)):
        if not isinstance(tables, Mapping):
            problems.append(f"{EXPERT}: must be a table, such as [{EXPERT}.practice].")
            continue
        for path, value, known in _leaves(Config, tables, ()):
            if not known:
                problems.append(_unknown(path, expert))
            elif strict and (told := _misplaced(path, expert)):
                if told not in problems:
                    problems.append(told)
            else:
                values[path] = value
    return values, problems


def spelled(path: KeyPath) -> str:
    """The dotted spelling of a key or a table in a file."""
    name = ".".join(path)
    if (setting := SETTINGS.get(path)) is not None:
        return setting.spelled
    return name if TABLES.get(path, True) else f"{EXPERT}.{name}"


def nested(values: Mapping[KeyPath, Any]) -> dict[str, Any]:
    """The tree of tables that holds the values; a plain value where a table belongs stays, and hides keys in it."""
    tree: dict[str, Any] = {}
    for path in sorted(values, key=len):
        *tables, key = path
        node: Any = tree
        for name in tables:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                break
        else:
            value = values[path]
            if path in TABLES and isinstance(value, Mapping):
                node.setdefault(key, {})
            else:
                node[key] = value
    return tree


def _leaves(
    model: type[Section], tree: Mapping[str, Any], path: KeyPath
) -> Iterator[tuple[KeyPath, Any, bool]]:
    """Every value of a tree with its path, and if the path is known; an empty table is a value."""
    for key, value in tree.items():
        here = (*path, key)
        field = model.model_fields.get(key)
        table = None if field is None else table_of(field)
        if table is not None and isinstance(value, Mapping) and value:
            yield from _leaves(table, value, here)
        else:
            yield here, value, field is not None


def _misplaced(path: KeyPath, expert: bool) -> str | None:
    """The sentence about a key in the wrong place, or None."""
    for depth in range(2, len(path) + 1):
        if expert or TABLES.get(path[:depth], True):
            continue
        table = ".".join(path[:depth])
        return f"[{table}] is an expert table: write it as [{EXPERT}.{table}]."
    if path not in SETTINGS or SETTINGS[path].everyday != expert:
        return None
    name, table = ".".join(path), ".".join(path[:-1])
    if not expert:
        return f"{name} is an expert key: write it under [{EXPERT}.{table}]."
    where = f"under [{table}]" if table else "at the top of the file, before the first table"
    return f"{name} is an everyday key: write it {where}."


def _unknown(path: KeyPath, expert: bool) -> str:
    """The sentence about a key that does not exist; the nearest key anywhere is named."""
    written = ".".join((EXPERT, *path) if expert else path)
    near = _nearest(path)
    if near is not None:
        where = " (at the top of the file)" if near == "recipe" and len(path) > 1 else ""
        return f"unknown key {written}; did you mean {near}?{where}"
    table = path[:-1]
    known = [key for key in (*SETTINGS, *TABLES) if len(key) == len(path) and key[:-1] == table]
    here = ", ".join(sorted(spelled(key) for key in known))
    return f"unknown key {written}; known keys here: {here}." if here else f"unknown key {written}."


def _nearest(path: KeyPath) -> str | None:
    """The known key or table that a wrong path most likely means.

    A key of the same name anywhere, else a similar one in the same table, else a similar one anywhere.
    """
    known = [key for key in (*SETTINGS, *TABLES) if key[:2] not in ROLE_TABLES]
    same = [key for key in (*SETTINGS, *TABLES) if len(key) == len(path) and key[:-1] == path[:-1]]
    for candidates, cutoff in ((known, 1.0), (same, 0.6), (known, 0.75), (same, 0.5)):
        by_last = {key[-1]: key for key in reversed(candidates)}
        if near := difflib.get_close_matches(path[-1], by_last, n=1, cutoff=cutoff):
            return spelled(by_last[near[0]])
    return None
