"""Judges figures by their definition and renders them: for the terminal, and as the record's page."""

from __future__ import annotations

from typing import Any

from bench.core.table import number
from bench.engine.definition import Definition, Gate

OURS = "ours"


def wording(gate: Gate) -> str:
    """What a gate asks for."""
    if gate.at_least is not None:
        of = f" than {gate.rival}" if gate.rival else ""
        bound = f"≥ {number(gate.at_least)}" + ("× less" if gate.rival else "")
    else:
        of = f" {gate.rival}" if gate.rival else ""
        bound = f"≤ {number(gate.at_most)}" + ("×" if gate.rival else "")
    return f"{gate.figure}: {bound}{of}"


def reaches(gate: Gate, value: float, bound: float | None) -> bool:
    """Whether a value is on the right side of a bound; without one it is not."""
    if bound is None:
        return False
    return value >= bound if gate.at_least is not None else value <= bound


def verdicts(definition: Definition, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether each expectation is met and each gate reached; None where a side was not measured.

    Who counts wrongly has reached nothing, and being quicker than a wrong rival proves nothing.
    """
    expected = []
    wrong: set[str] = set()
    for expect in definition.expect:
        for engine, found in figures.items():
            if expect.engine not in ("*", engine):
                continue
            value = found.get(expect.figure)
            met = value is not None and expect.least <= value <= expect.most
            if not met:
                wrong.add(engine)
            expected.append(
                {
                    "engine": engine,
                    "figure": expect.figure,
                    "value": value,
                    "least": expect.least,
                    "most": expect.most,
                    "met": met,
                }
            )
    gates = []
    for gate in definition.gates:
        value = figures.get(OURS, {}).get(gate.figure)
        if gate.rival is not None:
            theirs = figures.get(gate.rival, {}).get(gate.figure)
            if value is None or theirs is None:
                value = None
            elif gate.at_least is not None:
                value = theirs / value if value else None
            else:
                value = value / theirs if theirs else None
        reached = stretched = None
        if value is not None:
            bound = gate.at_least if gate.at_least is not None else gate.at_most
            right = OURS not in wrong
            reached = right and reaches(gate, value, bound)
            stretched = right and reaches(gate, value, gate.stretch)
        gates.append(
            {
                "gate": wording(gate),
                "stretch": gate.stretch,
                "value": value,
                "reached": reached,
                "stretched": stretched,
                "rival wrong": gate.rival in wrong,
                "ours wrong": OURS in wrong,
            }
        )
    return {"expected": expected, "gates": gates}


def verdict(row: dict[str, Any]) -> str:
    """The words beside a gate."""
    if row["reached"] is None:
        return "not measured"
    word = ("met, stretch too" if row["stretched"] else "met") if row["reached"] else "**missed**"
    if row["ours wrong"]:
        word += " (our counts are outside of what was expected)"
    if row["rival wrong"]:
        word += " (the rival's counts are outside of what was expected)"
    return word


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Header and one row an engine: the figures that the definition shows."""
    table = [["engine", *(f"{key} ({unit})" if unit else key for key, unit in result["show"].items())]]
    for engine, found in result["figures"].items():
        table.append([engine, *(number(found.get(key)) for key in result["show"])])
    return table


def complaints(result: dict[str, Any]) -> list[str]:
    """What failed, and what was counted wrongly."""
    lines = [f"{engine} failed: {reason}" for engine, reason in result["failed"].items()]
    lines += [
        f"wrong: {row['engine']} has {row['figure']} {number(row['value']) or 'nothing'}, expected "
        f"{number(row['least'])} to {number(row['most'])}"
        for row in result["expected"]
        if not row["met"]
    ]
    lines += [
        f"{engine} lost calls: {error} ({count}×)"
        for engine, found in result["errors"].items()
        for error, count in found.items()
    ]
    return lines


def terminal(result: dict[str, Any]) -> str:
    """One definition as text with aligned columns."""
    table = rows(result)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [f"\n{result['title']}"]
    lines += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table
    ]
    lines += [f"  {line}" for line in complaints(result)]
    lines += [
        f"  {row['gate']:44} stretch {number(row['stretch']) or '-':>6} {number(row['value']):>9}  {verdict(row)}"
        for row in result["gates"]
    ]
    return "\n".join(lines)


def markdown(record: dict[str, Any]) -> str:
    """The record's page."""
    machine, server = record["machine"], record["server"]
    lines = [
        "# The engine beside its rivals",
        "",
        (
            f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, load before "
            f"{record['load before']:.1f}, {record['minutes']} minutes. Medians of the rounds, engines in turn, a "
            "process each. CPU is user and system seconds of the client's process a 1,000 calls that the server "
            "counted. Ours runs with journal (`synchronous=FULL`), admission, budget, usage and progress on; rivals "
            "run bare. The mock server's own ceiling on this machine: "
            f"{number(server['calls a second'])} calls a second, {number(server['microseconds a call'])} µs of "
            "CPU a call."
        ),
        "",
        "## Gates",
        "",
        "| | gate | stretch | measured | |",
        "|---|---|---|---|---|",
    ]
    for result in record["definitions"].values():
        lines += [
            f"| {result['title']} | {row['gate']} | {number(row['stretch'])} | {number(row['value'])} "
            f"| {verdict(row)} |"
            for row in result["gates"]
        ]
    everyone: dict[str, str] = {}
    for result in record["definitions"].values():
        everyone |= result["engines"]
        asked = ", ".join(
            f"{key.replace('_', ' ')} {number(value)}"
            for key, value in result["ask"].items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        )
        lines += [
            "",
            f"## {result['title']}",
            "",
            f"{asked}, rounds {result['rounds']}. {result['note']}".strip(),
            "",
        ]
        table = rows(result)
        lines += ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in table[1:]]
        if said := complaints(result):
            lines += ["", *(f"- {line}" for line in said)]
    lines += ["", "## Engines", ""]
    lines += [f"- `{engine}`: {about}" for engine, about in everyone.items()]
    return "\n".join(lines) + "\n"
