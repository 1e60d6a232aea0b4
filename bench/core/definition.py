"""A definition: what is measured on which data, what every engine must find, and what must be reached."""

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
    """What must be reached: a figure of ours, or how many times the rival's is ours."""

    figure: str
    rival: str | None
    at_least: float | None
    at_most: float | None


class Definition(NamedTuple):
    """One file of `definitions/`. `ask` is handed to the engines' processes as it is.

    `only` says for an engine which figures it is there for ("insert"); `limits`, how many questions a slow one gets.
    """

    name: str
    title: str
    do: str
    rounds: int
    quick: bool
    vectors: bool
    engines: tuple[str, ...]
    show: dict[str, str]
    expect: tuple[Expect, ...]
    gates: tuple[Gate, ...]
    only: dict[str, list[str]]
    limits: dict[str, int]
    ask: dict[str, Any]
    note: str


def read(path: Path) -> Definition:
    """Reads one file; an unknown key of a gate or an expectation is an error."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    expect = tuple(
        Expect(
            str(row.pop("engine", "*")),
            str(row.pop("figure")),
            float(row.pop("least")),
            float(row.pop("most")),
        )
        for row in table.pop("expect", [])
    )
    gates = []
    for row in table.pop("gate", []):
        gate = Gate(
            row.pop("figure"), row.pop("rival", None), row.pop("at_least", None), row.pop("at_most", None)
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
        quick=table.pop("quick", False),
        vectors=table.pop("vectors", True),
        engines=tuple(table.pop("engines")),
        show=table.pop("show"),
        expect=expect,
        gates=tuple(gates),
        only=table.pop("only", {}),
        limits=table.pop("limits", {}),
        note=table.pop("note", ""),
        ask=table,
    )


def read_all(folder: Path) -> list[Definition]:
    """All definitions, in the order of their names."""
    return [read(path) for path in sorted(folder.glob("*.toml"))]
