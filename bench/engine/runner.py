"""Runs the definitions: a process an engine, one round of each engine after another, one at a time.

`python -m bench.engine.runner [--quick] [--rivals FOLDER] [--engines A,B] [NAME ...]`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.core.runner import machine
from bench.engine import lessons
from bench.engine.definition import Definition, read_all
from bench.engine.figures import middle, of_calls, of_practice, of_resume
from bench.engine.provider import Provider
from bench.engine.table import OURS, markdown, terminal, verdicts

ROOT = Path(__file__).parents[2]
DEFINITIONS = Path(__file__).parent / "definitions"
CACHE = ROOT / ".cache" / "bench" / "engine"
RECORD = ROOT / "bench" / "record"
SERVER = ROOT / "target" / "bench" / "release"
# How a journal to resume is made, and who makes the first new call with it.
FILL = {"calls": "fill", "run": "fill_run"}
FIRST = {"calls": "first_call", "run": "first_of_run"}
# Seconds for one answer of an engine's process.
PATIENCE = 400.0
# The environment of each rival; who is not here runs with the project's interpreter.
RIVALS = {
    "openai_default": "openai",
    "openai_aiohttp": "openai",
    "litellm_acompletion": "litellm",
    "litellm_router": "litellm",
    "curator_llm": "curator",
    "inspect_generate": "inspect",
    "pyreqwest_client": "pyreqwest",
}


class EngineError(Exception):
    """The process of an engine ended without an answer."""


def environment() -> dict[str, str]:
    """What an engine's process sees: nothing of ours that is secret, no telemetry, no look-up in the network."""
    home = CACHE / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'python'}",
        "PYTHONHASHSEED": "0",
        "OPENAI_API_KEY": "bench",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "CURATOR_CACHE_DIR": str(home / "curator"),
        "CURATOR_DISABLE_CACHE": "1",
        "TELEMETRY_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }


class Process:
    """An engine's process. It waits, without running, while the others have their turn."""

    def __init__(self, engine: str, python: Path, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.spawned = time.time()
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [python, "-m", "bench.engine.child", engine],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment(),
                text=True,
                encoding="utf-8",
            )

    def ask(self, do: str, question: dict[str, Any], patience: float = PATIENCE) -> dict[str, Any]:
        """One question, one answer, within so many seconds.

        Raises:
            EngineError: the process ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # A client that waits for ever must not stop the bench.
        watch = threading.Timer(patience, self.process.kill)
        watch.start()
        try:
            self.process.stdin.write(json.dumps(question | {"do": do}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            if self.process.wait() == -signal.SIGKILL:
                raise EngineError(f"killed, no answer for {patience:g} s")
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise EngineError(said[-1] if said else f"exit status {self.process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """The process ends by itself when there are no more questions; one that does not is ended."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench:
    """Asks the engines of one definition."""

    def __init__(self, provider: Provider, rivals: Path) -> None:
        self.provider = provider
        self.rivals = rivals

    def start(self, definition: Definition, name: str) -> Process:
        """The process of an engine."""
        python = Path(sys.executable)
        if name in RIVALS:
            # Not resolved: the link says which environment it is.
            python = self.rivals / RIVALS[name] / "bin" / "python"
            if not python.exists():
                raise EngineError("its environment is not installed")
        return Process(name, python, CACHE / "logs" / f"{definition.name}-{name}.txt")

    def calls(self, definition: Definition, names: list[str]) -> dict[str, Any]:
        """Rounds of calls, interleaved."""
        result = Result()
        processes: dict[str, Process] = {}
        asks = {name: self.ask(definition, name) for name in names}
        try:
            for number in range(definition.rounds):
                for name in [name for name in names if name not in result.failed]:
                    if number >= asks[name].get("rounds", definition.rounds):
                        continue
                    ask = asks[name] | {"first": number * asks[name]["calls"]}
                    try:
                        if name not in processes:
                            processes[name] = self.start(definition, name)
                            result.engines[name] = processes[name].ask("describe", {})["engine"]
                            self.provider.configure({})
                            processes[name].ask("open", ask)
                        self.provider.configure(definition.server)
                        told = processes[name].ask("calls", ask)
                    except EngineError as error:
                        result.failed[name] = str(error)
                        continue
                    result.add(name, told, of_calls(ask, told, self.provider.counts()))
            for name, process in processes.items():
                if name not in result.failed:
                    process.ask("close", {})
        finally:
            for process in processes.values():
                process.close()
        return result.all()

    def practice(self, definition: Definition, names: list[str]) -> dict[str, Any]:
        """Practice steps; a round has its own latencies, the same for all engines."""
        result = Result()
        digests: dict[int, set[str]] = {}
        for number in range(definition.rounds):
            latency = definition.server["latency"] | {"seed": number + 1}
            server = definition.server | {"latency": latency, "answers": lessons.ANSWERS, "record_keys": True}
            for name in [name for name in names if name not in result.failed]:
                ask = self.ask(definition, name) | {"what": "practise"}
                self.provider.configure(server)
                process = self.start(definition, name)
                try:
                    result.engines[name] = process.ask("describe", {})["engine"]
                    told = process.ask("work", ask)
                except EngineError as error:
                    result.failed[name] = str(error)
                    continue
                finally:
                    process.close()
                counts = self.provider.counts(keys=True)
                digests.setdefault(number, set()).add(told["digest"])
                figures = of_practice(ask, told, counts, definition.server.get("limit", {}))
                result.add(name, told, figures)
        # The same replies make the same library, whoever asked for them in whatever order.
        for rounds in result.rounds.values():
            for number, figures in enumerate(rounds):
                figures["same library"] = float(len(digests[number]) == 1)
        return result.all()

    def resume(self, definition: Definition, names: list[str]) -> dict[str, Any]:
        """From the start of the process to the first request that the server sees."""
        result = Result()
        for name in names:
            ask = self.ask(definition, name)
            kept = CACHE / f"resume-{ask['of']}-{ask['calls']}-{journal_version()}"
            used = CACHE / "resumed"
            try:
                self.fill(definition, name, ask | {"directory": str(kept)})
                for number in range(definition.rounds):
                    # Each round finds what the interrupted run left, in the system's cache.
                    shutil.rmtree(used, ignore_errors=True)
                    shutil.copytree(kept, used)
                    self.provider.configure(definition.server)
                    process = self.start(definition, name)
                    first = {"directory": str(used), "what": FIRST[ask["of"]], "new": 20_000_000 + number}
                    try:
                        told = process.ask("work", ask | first)
                        result.engines[name] = process.ask("describe", {})["engine"]
                    finally:
                        process.close()
                    result.add(name, told, of_resume(told, self.provider.counts(), process.spawned))
            except EngineError as error:
                result.failed[name] = str(error)
            finally:
                shutil.rmtree(used, ignore_errors=True)
        return result.all()

    def fill(self, definition: Definition, name: str, ask: dict[str, Any]) -> None:
        """The journal to resume, where it is not there yet."""
        folder = Path(ask["directory"])
        if (folder / "complete").exists():
            return
        # Those that other code made, and one that was not finished, are of no use.
        for other in CACHE.glob(f"resume-{ask['of']}-{ask['calls']}-*"):
            shutil.rmtree(other)
        folder.mkdir(parents=True)
        process = self.start(definition, name)
        try:
            process.ask("work", ask | {"what": FILL[ask["of"]]}, patience=1800.0)
        finally:
            process.close()
        (folder / "complete").touch()

    def ask(self, definition: Definition, name: str) -> dict[str, Any]:
        """The question to one engine."""
        return definition.ask | definition.each.get(name, {}) | {"url": f"{self.provider.url}/v1"}


def journal_version() -> str:
    """A journal made by other code is made anew."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "python" / "tfgrpo" / "journal").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


class Result:
    """What came of a definition, while it grows."""

    def __init__(self) -> None:
        self.engines: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.errors: dict[str, dict[str, int]] = {}
        self.rounds: dict[str, list[dict[str, float]]] = {}

    def add(self, name: str, told: dict[str, Any], figures: dict[str, float]) -> None:
        """One round of one engine."""
        self.rounds.setdefault(name, []).append(figures)
        if told.get("errors"):
            self.errors[name] = told["errors"]

    def all(self) -> dict[str, Any]:
        """For the record."""
        figures = {name: middle(rounds) for name, rounds in self.rounds.items() if name not in self.failed}
        return {
            "engines": self.engines,
            "failed": self.failed,
            "errors": self.errors,
            "figures": figures,
            "every round": self.rounds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="definitions to run, by the beginning of their name; none: all"
    )
    parser.add_argument("--rivals", type=Path, default=CACHE, help="the folder of the rivals' environments")
    parser.add_argument("--quick", action="store_true", help="about three minutes; no record")
    parser.add_argument("--engines", help="only these engines, by comma; no record")
    parser.add_argument("--update", action="store_true", help="put the named definitions into the record")
    parser.add_argument("--strict", action="store_true", help="a missed gate is a failure")
    options = parser.parse_args()
    engines = set(options.engines.split(",")) if options.engines else None
    chosen = [
        definition
        for definition in read_all(DEFINITIONS, quick=options.quick)
        if not options.names or any(definition.name.startswith(name) for name in options.names)
    ]
    if not chosen:
        raise SystemExit(f"no definition is called {', '.join(options.names)}")
    record: dict[str, Any] = {"machine": machine(), "load before": os.getloadavg()[0], "definitions": {}}
    start = time.perf_counter()
    wrong = missed = 0
    with Provider(SERVER) as provider:
        record["server"] = provider.ceiling()
        bench = Bench(provider, options.rivals.absolute())
        for definition in chosen:
            names = [name for name in definition.engines if engines is None or name in engines]
            result: dict[str, Any] = {
                "title": definition.title,
                "note": definition.note,
                "ask": definition.ask,
                "rounds": definition.rounds,
                "show": definition.show,
            }
            result |= getattr(bench, definition.do)(definition, names)
            result |= verdicts(definition, result["figures"])
            record["definitions"][definition.name] = result
            wrong += sum(not row["met"] for row in result["expected"] if row["engine"] == OURS)
            wrong += OURS in result["failed"]
            missed += sum(not row["reached"] for row in result["gates"])
            print(terminal(result), flush=True)
            # What is measured is measured, should a later definition fail.
            (CACHE / "partial.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    record["minutes"] = round((time.perf_counter() - start) / 60, 1)
    whole = not (options.names or options.quick or engines)
    folder = RECORD if whole or options.update else CACHE
    folder.mkdir(parents=True, exist_ok=True)
    if options.update:
        before = json.loads((RECORD / "engine.json").read_text("utf-8"))
        merged = before["definitions"] | record["definitions"]
        # A definition that is gone leaves the record.
        kept = {name: merged[name] for name in sorted(merged) if (DEFINITIONS / f"{name}.toml").exists()}
        record = before | {"definitions": kept}
    (folder / "engine.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "engine.md").write_text(markdown(record), encoding="utf-8")
    print(f"{record['minutes']} minutes; {missed} gates not met; {wrong} counts of ours wrong")
    if wrong or (options.strict and missed):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
