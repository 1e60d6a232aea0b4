"""The scan bench of the Rust core, run by cargo and read: rows, GB/s, the floor and the ratio to it.

A scan's answers are tested in Rust, against plain loops; here it is only timed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

#: rows, name, median and least in µs, GB/s, ratio to the floor.
LINE = re.compile(r"(\d+) +(\S.*?) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)")
FLOOR, SCAN = "floor 256 B", re.compile(r"vectors, 10 \((.+)\)")


class ScanBenchError(Exception):
    """The bench did not run, or printed something else."""


def read(printed: str, rows: int) -> dict[str, Any]:
    """The quickest exact scan of `rows` vectors for the best ten, and the floor of the same rounds.

    Raises:
        ScanBenchError: there is no such row.
    """
    floor: float | None = None
    scans: list[tuple[float, float, float, str]] = []
    for line in printed.splitlines():
        match = LINE.fullmatch(line.strip())
        if match is None or int(match[1]) != rows:
            continue
        if match[2] == FLOOR:
            floor = float(match[3])
        elif (named := SCAN.fullmatch(match[2])) is not None:
            scans.append((float(match[3]), float(match[5]), float(match[6]), named[1]))
    if floor is None or not scans:
        raise ScanBenchError(f"the scan bench has no rows of {rows:,} vectors and their floor")
    scan, rate, ratio, kind = min(scans)
    return {"scan": scan, "floor": floor, "by floor": ratio, "scan GB/s": rate, "kind": kind}


class ScanBench:
    """Takes the place of an engine's process."""

    def __init__(self, name: str, root: Path) -> None:
        self.command = ["cargo", "bench", "--quiet", "--locked", "-p", "tfgrpo-core", "--bench", name]
        self.root = root
        self.cargo("--no-run")

    def cargo(self, *more: str) -> str:
        try:
            done = subprocess.run(
                [*self.command, *more], cwd=self.root, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ScanBenchError("cargo is not installed") from error
        if done.returncode:
            raise ScanBenchError((done.stderr.strip().splitlines() or ["cargo failed"])[-1])
        return done.stdout

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One run of the bench."""
        if question["do"] == "describe":
            return {"engine": f"`{' '.join(self.command)}`"}
        return read(self.cargo(), int(question["size"]))

    def close(self) -> None:
        """There is nothing to end."""
