"""Judges figures by their definition and renders them: for the terminal, and as the record's page."""

from __future__ import annotations

from typing import Any

from bench.core.definition import Definition, Gate

OURS = "ours"


def number(value: object) -> str:
    """Three digits or all of an integer's."""
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    if value == int(value) and abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def wording(gate: Gate) -> str:
    """What a gate asks for."""
    bound = f"≥ {number(gate.at_least)}" if gate.at_least is not None else f"≤ {number(gate.at_most)}"
    return f"{gate.figure}: {bound}" + (f"× {gate.rival}" if gate.rival else "")


def verdicts(definition: Definition, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether each expectation is met and each gate reached; None where a side has not been measured or is wrong."""
    expected = []
    wrong: set[str] = set()
    for expect in definition.expect:
        for engine, found in figures.items():
            if expect.engine not in ("*", engine) or expect.figure not in found:
                continue
            met = expect.least <= found[expect.figure] <= expect.most
            if not met:
                wrong.add(engine)
            expected.append(
                {
                    "engine": engine,
                    "figure": expect.figure,
                    "value": found[expect.figure],
                    "least": expect.least,
                    "most": expect.most,
                    "met": met,
                }
            )
    if definition.do == "twin":
        for engine, found in figures.items():
            for key in [key for key in found if key.startswith("result ")]:
                other = [answer[key] for answer in figures.values() if key in answer]
                met = len(set(other)) == 1
                expected.append({"engine": engine, "figure": key, "value": found[key], "met": met})
                if not met:
                    wrong.add(engine)
    gates = []
    for gate in definition.gates:
        ours = figures.get(OURS, {}).get(gate.figure)
        value = ours
        if gate.rival is not None:
            theirs = figures.get(gate.rival, {}).get(gate.figure)
            # How many times the rival's cost is ours; at most means the other way, ours by theirs.
            if ours is None or theirs is None:
                value = None
            else:
                value = theirs / ours if gate.at_least is not None else ours / theirs
        reached: bool | None = None
        if value is not None:
            reached = value >= gate.at_least if gate.at_least is not None else value <= (gate.at_most or 0.0)
            # Who answers wrongly has reached nothing, and being quicker than a wrong rival proves nothing.
            if OURS in wrong:
                reached = False
        gates.append(
            {
                "gate": wording(gate),
                "value": value,
                "reached": reached,
                "rival wrong": gate.rival in wrong,
            }
        )
    return {"expected": expected, "gates": gates}


def verdict(row: dict[str, Any]) -> str:
    """The word beside a gate."""
    if row["reached"] is None:
        return "not measured"
    word = "met" if row["reached"] else "**missed**"
    return word + (" (the rival's answers are outside of what was expected)" if row["rival wrong"] else "")


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Header and one row an engine: the figures that the definition shows."""
    shown = list(result["show"])
    table = [["engine", *(f"{key} ({unit})" if unit else key for key, unit in result["show"].items())]]
    for engine, found in result["figures"].items():
        table.append([engine, *(number(found.get(key)) for key in shown)])
    return table


def terminal(result: dict[str, Any]) -> str:
    """One definition as text with aligned columns."""
    table = rows(result)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [f"\n{result['title']}"]
    lines += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table
    ]
    lines += [f"  {engine}: failed, {reason}" for engine, reason in result["failed"].items()]
    lines += [
        f"  wrong: {row['engine']} has {row['figure']} {number(row['value'])}, expected "
        + (f"{number(row['least'])} to {number(row['most'])}" if "least" in row else "the other side's")
        for row in result["expected"]
        if not row["met"]
    ]
    lines += [f"  {row['gate']:44} {number(row['value']):>9}  {verdict(row)}" for row in result["gates"]]
    return "\n".join(lines)


def markdown(record: dict[str, Any]) -> str:
    """The record's page."""
    machine = record["machine"]
    lines = [
        "# The Rust core beside its rivals",
        "",
        (
            f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, load before "
            f"{record['load before']:.1f}, {record['minutes']} minutes. CPU seconds of one thread, medians of the "
            "rounds, engines in turn, a process each. Rivals of vectors are given them ready made, so embedding is in "
            f"our figures and not in theirs: a favour to them. A factor says "
            "how many times ours the rival's figure is."
        ),
        "",
        "## Gates",
        "",
        "| | gate | measured | |",
        "|---|---|---|---|",
    ]
    for result in record["definitions"].values():
        lines += [
            f"| {result['title']} | {row['gate']} | {number(row['value'])} | {verdict(row)} |"
            for row in result["gates"]
        ]
    everyone: dict[str, str] = {}
    for result in record["definitions"].values():
        everyone |= result["engines"]
        size = ", ".join(f"{key} {value:,}" for key, value in result["data"].items())
        lines += [
            "",
            f"## {result['title']}",
            "",
            f"{size}, rounds {result['rounds']}. {result['note']}".strip(),
            "",
        ]
        table = rows(result)
        lines += ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in table[1:]]
        if result["failed"]:
            lines += ["", *(f"- {engine} failed: {reason}" for engine, reason in result["failed"].items())]
        outside = [row for row in result["expected"] if not row["met"]]
        lines += [""] if outside else []
        lines += [f"- wrong: {row['engine']}, {row['figure']} is {number(row['value'])}" for row in outside]
    lines += ["", "## Engines", ""]
    lines += [f"- `{engine}`: {about}" for engine, about in everyone.items()]
    return "\n".join(lines) + "\n"
