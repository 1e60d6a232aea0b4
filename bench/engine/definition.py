"""A definition: what is asked of which engines, what a right engine must count, and what must be reached."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple


class Expect(NamedTuple):
    """A range in which a figure of an engine must lie, or its other figures count for nothing."""

    engine: str
    figure: str
    least: float
    most: float


class Gate(NamedTuple):
    """What must be reached: a figure of ours; with a rival, ours by the rival's (`at_most`) or the rival's by ours.

    `stretch` is what would be better still.
    """

    figure: str
    rival: str | None
    at_least: float | None
    at_most: float | None
    stretch: float | None


class Definition(NamedTuple):
    """One file of `definitions/`. `ask` is handed to the engines' processes, `server` to the mock provider.

    `each` holds what is asked otherwise of single engines: fewer calls of a slow one.
    """

    name: str
    title: str
    do: str
    rounds: int
    engines: tuple[str, ...]
    show: dict[str, str]
    expect: tuple[Expect, ...]
    gates: tuple[Gate, ...]
    server: dict[str, Any]
    each: dict[str, dict[str, Any]]
    ask: dict[str, Any]
    note: str


def read(path: Path, *, quick: bool = False) -> Definition:
    """Reads one file; the table `quick` holds what a quick run has otherwise.

    Raises:
        SystemExit: a gate or an expectation has an unknown key.
    """
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    overrides = table.pop("quick", {})
    if quick:
        table = _merged(table, overrides)
    expect = []
    for row in table.pop("expect", []):
        made = Expect(
            str(row.pop("engine", "*")), row.pop("figure"), float(row.pop("least")), float(row.pop("most"))
        )
        if row:
            raise SystemExit(f"{path}: an expectation has an unknown key: {row}")
        expect.append(made)
    gates = []
    for row in table.pop("gate", []):
        gate = Gate(
            row.pop("figure"),
            row.pop("rival", None),
            row.pop("at_least", None),
            row.pop("at_most", None),
            row.pop("stretch", None),
        )
        if row or (gate.at_least is None) == (gate.at_most is None):
            raise SystemExit(
                f"{path}: a gate has one of at_least and at_most, and nothing unknown: {gate} {row}"
            )
        gates.append(gate)
    return Definition(
        name=path.stem,
        title=table.pop("title"),
        do=table.pop("do"),
        rounds=table.pop("rounds"),
        engines=tuple(table.pop("engines")),
        show=table.pop("show"),
        expect=tuple(expect),
        gates=tuple(gates),
        server=table.pop("server", {}),
        each=table.pop("each", {}),
        note=table.pop("note", ""),
        ask=table,
    )


def read_all(folder: Path, *, quick: bool = False) -> list[Definition]:
    """All definitions, in the order of their names."""
    return [read(path, quick=quick) for path in sorted(folder.glob("*.toml"))]


def _merged(table: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in overrides.items():
        inner = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if inner else value
    return merged
