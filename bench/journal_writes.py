"""Durable records a second: 256 writers, 10 KB each, `synchronous=FULL`, group commit; medians of five rounds.

The floor beside it: one plain `fdatasync` of the same bytes after another, which is what a commit per record costs.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

import anyio

from tfgrpo.journal import Journal, JournalReader
from tfgrpo.types import Message, Trajectory

RECORDS, WRITERS, ROUNDS = 4_000, 256, 5
FLOOR_RECORDS = 200


def trajectory(number: int, words: list[str]) -> Trajectory:
    draw = random.Random(number)
    text = f"{number} " + " ".join(draw.choices(words, k=900))
    return Trajectory((Message("system", "S" * 2000), Message("assistant", text)))


async def write(folder: Path, values: list[Trajectory]) -> tuple[float, float, int]:
    path = folder / "journal.db"
    queue = iter(enumerate(values))
    async with Journal.create(path, {}) as journal:

        async def writer() -> None:
            for number, value in queue:
                await journal.record("rollout", f"k/{number:06}", value)

        wall, cpu = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as group:
            for _ in range(WRITERS):
                group.start_soon(writer)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        commits = journal.commits
    with JournalReader(path) as reader:
        found = len(reader.records("rollout", Trajectory))
    if found != len(values):
        raise SystemExit(f"wrong engine: {found} records of {len(values)}")
    return wall, cpu, commits


def floor(folder: Path, values: list[Trajectory]) -> float:
    with (folder / "floor").open("wb") as file:
        start = time.perf_counter()
        for value in values[:FLOOR_RECORDS]:
            file.write(value.messages[1].content.encode())
            file.flush()
            os.fdatasync(file.fileno())
        return (time.perf_counter() - start) / FLOOR_RECORDS


def main() -> None:
    words = [f"{random.Random(number).getrandbits(40):x}" for number in range(5_000)]
    values = [trajectory(number, words) for number in range(RECORDS)]
    rates, cpus, commits, floors = [], [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=".") as name:
            folder = Path(name)
            floors.append(1 / floor(folder, values))
            wall, cpu, count = anyio.run(write, folder, values, backend_options={"use_uvloop": True})
            rates.append(RECORDS / wall)
            cpus.append(cpu / RECORDS * 1e6)
            commits.append(count)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"records of {len(values[0].messages[1].content):,} characters, {WRITERS} writers, {ROUNDS} rounds")
    for name, numbers, unit in (
        ("journal, group commit", rates, "records/s"),
        ("one fdatasync a record", floors, "records/s"),
        ("processor", cpus, "µs a record"),
        ("commits", commits, f"for {RECORDS:,} records"),
    ):
        low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
        print(f"{name:24} min {low:8,.0f}  median {middle:8,.0f}  max {high:8,.0f}  {unit}")


if __name__ == "__main__":
    main()
