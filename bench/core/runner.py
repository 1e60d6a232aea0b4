"""Runs the definitions: a process an engine, one round of each engine after another, one at a time.

`python -m bench.core.runner --rivals .cache/bench/rivals/bin/python [--quick] [NAME ...]`
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.core import data
from bench.core.definition import Definition, read_all
from bench.core.scan_bench import ScanBench, ScanBenchError
from bench.core.table import markdown, terminal, verdicts

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "bench"
RECORD = ROOT / "bench" / "record"
OURS = "ours"
# Who runs with the project's interpreter; the others with that of the rivals.
WITH_TFGRPO = (OURS, "list_in_place", "top_k_per_question")
# CPU seconds are compared: a second thread would only add to them. So everyone has one.
ONE_THREAD = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip


class EngineError(Exception):
    """The process of an engine ended without an answer."""


class Process:
    """An engine's process. It waits, without running, while the others have their turn."""

    def __init__(self, engine: str, python: Path, log: Path) -> None:
        self.engine = engine
        self.log = log
        environment = os.environ | dict.fromkeys(ONE_THREAD, "1") | {"PYTHONPATH": str(ROOT)}
        environment["PYTHONHASHSEED"] = "0"
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [python, "-m", "bench.core.child", engine],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment,
                text=True,
                encoding="utf-8",
            )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One question, one answer.

        Raises:
            EngineError: the process ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise EngineError(said[-1] if said else f"exit status {self.process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def middle(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure the median of the rounds; a digest must be the same in all."""
    result: dict[str, Any] = {}
    for key in dict.fromkeys(key for figures in rounds for key in figures):
        values = [figures[key] for figures in rounds if key in figures]
        if isinstance(values[0], str):
            result[key] = values[0] if len(set(values)) == 1 else "differs between rounds"
        else:
            result[key] = statistics.median(values)
    return result


def run(definition: Definition, rivals: Path, engines: set[str] | None) -> dict[str, Any]:
    """All rounds of one definition, interleaved: every engine's first, then every engine's second."""
    made = data.make(CACHE / "data", definition.ask, definition.vectors)
    logs = CACHE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    names = [name for name in definition.engines if engines is None or name in engines]
    failed: dict[str, str] = {}
    processes: dict[str, Process | ScanBench] = {}
    for name in names:
        if name == OURS and "cargo_bench" in definition.ask:
            try:
                processes[name] = ScanBench(str(definition.ask["cargo_bench"]), ROOT)
            except ScanBenchError as error:
                failed[name] = str(error)
            continue
        python = Path(sys.executable) if name in WITH_TFGRPO else rivals
        processes[name] = Process(name, python, logs / f"{definition.name}-{name}.txt")
    ask = definition.ask | {"do": definition.do, "data": str(made.folder)}
    ask["pairs"] = str(ROOT / "bench" / "core" / "pairs.jsonl")
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    described: dict[str, str] = {}
    try:
        for number in range(definition.rounds):
            for name in names:
                if name in failed:
                    continue
                refill = number == 0 or bool(definition.ask.get("refill", False))
                question = ask | {"refill": refill, "query": "query" in definition.only.get(name, ["query"])}
                if name in definition.limits:
                    question["limit"] = definition.limits[name]
                try:
                    if not number:
                        described[name] = processes[name].ask({"do": "describe"})["engine"]
                    rounds[name].append(processes[name].ask(question))
                except (EngineError, ScanBenchError) as error:
                    failed[name] = str(error)
    finally:
        for process in processes.values():
            process.close()
    return {
        "title": definition.title,
        "note": definition.note,
        "data": {key: definition.ask[key] for key in ("size", "seed", "questions") if key in definition.ask},
        "rounds": definition.rounds,
        "show": definition.show,
        "engines": described,
        "failed": failed,
        "figures": {name: middle(rounds[name]) for name in names if rounds[name] and name not in failed},
        "every round": {name: rounds[name] for name in names},
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    model = next(
        (line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")),
        platform.processor(),
    ) if info.exists() else platform.processor()  # fmt: skip
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.machine(),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="definitions to run; none: all")
    parser.add_argument("--rivals", type=Path, required=True, help="the interpreter that has the rivals")
    parser.add_argument(
        "--quick", action="store_true", help="only the definitions marked as quick; no record"
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="put the named definitions, run anew, into the record that is there",
    )
    parser.add_argument("--engines", help="only these engines, by comma; no record")
    parser.add_argument("--strict", action="store_true", help="a missed gate is a failure")
    options = parser.parse_args()
    engines = set(options.engines.split(",")) if options.engines else None
    chosen = [
        definition
        for definition in read_all(Path(__file__).parent / "definitions")
        if (not options.names or definition.name in options.names) and (definition.quick or not options.quick)
    ]
    if not chosen:
        raise SystemExit(f"no definition is called {', '.join(options.names)}")
    record: dict[str, Any] = {"machine": machine(), "load before": os.getloadavg()[0]}
    record["definitions"] = {}
    start = time.perf_counter()
    wrong = missed = 0
    for definition in chosen:
        result = run(definition, options.rivals.absolute(), engines)
        result |= verdicts(definition, result["figures"])
        record["definitions"][definition.name] = result
        wrong += sum(not row["met"] for row in result["expected"]) + (OURS in result["failed"])
        missed += sum(row["reached"] is False for row in result["gates"])
        print(terminal(result), flush=True)
    record["minutes"] = round((time.perf_counter() - start) / 60, 1)
    whole = not (options.names or options.quick or engines)
    folder = RECORD if whole or options.update else CACHE
    folder.mkdir(parents=True, exist_ok=True)
    if options.update:
        before = json.loads((RECORD / "core.json").read_text("utf-8"))
        record = before | {"definitions": before["definitions"] | record["definitions"]}
    (folder / "core.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "core.md").write_text(markdown(record), encoding="utf-8")
    print(f"{record['minutes']} minutes; {missed} gates missed; {wrong} answers outside of what was expected")
    if wrong or (options.strict and missed):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
