"""The journal's speed: durable records and calls a second, the processor time of a call, and opening.

`python bench/journal_writes.py [--open]`: 256 writers, `synchronous=FULL`, group commit; medians of five rounds. The
floor beside it: one plain `fdatasync` of the same bytes after another, what a commit per record costs.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

import anyio

from tfgrpo.journal import Journal, JournalReader, digest_of
from tfgrpo.keys import Key
from tfgrpo.protocols import Effect
from tfgrpo.types import Choice, EffectKind, Message, ModelReply, ModelRequest, Role, Trajectory, Usage

T = TypeVar("T")

RECORDS, CALLS, OPENED, WRITERS, ROUNDS = 4_000, 10_000, 200_000, 256, 5
FLOOR_RECORDS = 200

WORDS = [f"{random.Random(number).getrandbits(40):x}" for number in range(5_000)]


def trajectory(number: int) -> Trajectory:
    draw = random.Random(number)
    text = f"{number} " + " ".join(draw.choices(WORDS, k=900))
    return Trajectory((Message("system", "S" * 2000), Message("assistant", text)))


def call(number: int) -> tuple[Key, ModelRequest, ModelReply]:
    """A system message of 2 KB that all share, a short question that eight share, a reply of 400 characters."""
    draw = random.Random(number // 8)
    question = Message("user", f"Question {number // 8}: " + " ".join(draw.choices(WORDS, k=6)))
    request = ModelRequest((SYSTEM, question), temperature=0.7, max_tokens=512, seed=number)
    reply = " ".join(random.Random(number).choices(WORDS, k=35))
    owner = Key("practice", number // 1000, task=f"t{number // 8 % 125:03}", index=number % 8)
    return (
        owner.do("model", "9f2c41d0aa17b3c8", "0"),
        request,
        ModelReply((Choice(reply),), Usage(1, 700, 600, 90, 0.001), "some-model-name"),
    )


SYSTEM = Message("system", " ".join(random.Random(0).choices(WORDS, k=220))[:2000])


async def share(values: Iterable[T], work: Callable[[T], Awaitable[None]]) -> tuple[float, float, float]:
    """Let the writers work off the values; seconds by the clock, of both threads, and of the loop's thread."""
    queue = iter(values)

    async def writer() -> None:
        for value in queue:
            await work(value)

    before = time.perf_counter(), time.process_time(), time.thread_time()
    async with anyio.create_task_group() as group:
        for _ in range(WRITERS):
            group.start_soon(writer)
    after = time.perf_counter(), time.process_time(), time.thread_time()
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


async def write_records(path: Path, values: list[Trajectory]) -> tuple[float, float, float, int]:
    async with await Journal.create(path, {}) as journal:

        async def work(item: tuple[int, Trajectory]) -> None:
            await journal.record("rollout", Key("k", index=item[0]), item[1])

        spent = await share(enumerate(values), work)
        commits = journal.commits
    with JournalReader(path) as reader:
        if list(reader.records("rollout", Trajectory).values()) != values:
            raise SystemExit("wrong engine: other records")
    return *spent, commits


async def write_calls(path: Path, calls: list[tuple[Key, ModelRequest, ModelReply]]) -> tuple[float, ...]:
    async with await Journal.create(path, {}) as journal:

        async def work(item: tuple[Key, ModelRequest, ModelReply]) -> None:
            key, request, reply = item
            [ticket] = await journal.intend(
                [Effect(key, EffectKind.MODEL, Role.ROLLOUT, digest_of(request), request)]
            )
            await journal.complete(ticket, reply, reply.usage)

        spent = await share(calls, work)
    with JournalReader(path) as reader:
        for key, request, reply in calls[:: len(calls) // 100]:
            if (reader.request(key, 0, ModelRequest), reader.result(key, 0, ModelReply)) != (request, reply):
                raise SystemExit(f"wrong engine: another call {key}")
    return spent


def floor(path: Path, values: list[Trajectory]) -> float:
    with path.open("wb") as file:
        start = time.perf_counter()
        for value in values[:FLOOR_RECORDS]:
            file.write(value.messages[1].content.encode())
            file.flush()
            os.fdatasync(file.fileno())
        return (time.perf_counter() - start) / FLOOR_RECORDS


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def open_large(path: Path, size: int) -> None:
    """Open a journal of many calls; for a process of its own, whose memory nothing else has used."""
    keys = [call(number)[:2] for number in range(0, OPENED, 200)]
    memory, wall, cpu = resident(), time.perf_counter(), time.process_time()
    journal = await Journal.open(path)
    spent = journal.usage()
    wall, cpu, memory = time.perf_counter() - wall, time.process_time() - cpu, resident() - memory
    start = time.perf_counter()
    for key, request in keys:
        known = await journal.find(key, ModelReply)
        if known is None or known.digest != digest_of(request):
            raise SystemExit(f"wrong engine: no call {key}")
    each = (time.perf_counter() - start) / len(keys) * 1e6
    await journal.aclose()
    if sum(usage.calls for usage in spent.values()) != OPENED:
        raise SystemExit("wrong engine: calls are missing")
    print(
        f"open {OPENED:,} calls ({size / 1e6:.0f} MB): {wall:.2f} s, processor {cpu:.2f} s, "
        f"{memory / 1e6:.0f} MB of memory; then `find` {each:.0f} µs"
    )


def show(name: str, numbers: list[float], unit: str) -> None:
    low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
    print(f"{name:24} min {low:8,.1f}  median {middle:8,.1f}  max {high:8,.1f}  {unit}")


def main() -> None:
    values = [trajectory(number) for number in range(RECORDS)]
    calls = [call(number) for number in range(CALLS)]
    floors: list[float] = []
    records: list[tuple[float, ...]] = []
    pairs: list[tuple[float, ...]] = []
    options = {"use_uvloop": True}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as name:
            folder = Path(name)
            floors.append(1 / floor(folder / "floor", values))
            records.append(anyio.run(write_records, folder / "r.db", values, backend_options=options))
            pairs.append(anyio.run(write_calls, folder / "c.db", calls, backend_options=options))
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"records of {len(values[0].messages[1].content):,} characters, {WRITERS} writers, {ROUNDS} rounds")
    show("records, group commit", [RECORDS / row[0] for row in records], "records/s")
    show("one fdatasync a record", floors, "records/s")
    show("processor", [row[1] / RECORDS * 1e6 for row in records], "µs a record")
    show("commits", [row[3] for row in records], f"for {RECORDS:,} records")
    show("intend + complete", [CALLS / row[0] for row in pairs], "pairs/s")
    show("processor", [row[1] / CALLS * 1e6 for row in pairs], "µs a pair, both threads")
    show("of it the loop's thread", [row[2] / CALLS * 1e6 for row in pairs], "µs a pair")
    if "--open" in sys.argv:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as name:
            path = Path(name) / "large.db"
            anyio.run(write_calls, path, [call(number) for number in range(OPENED)])
            for _ in range(ROUNDS):
                subprocess.run([sys.executable, __file__, "--only-open", str(path)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only-open"]:
        anyio.run(open_large, Path(sys.argv[2]), Path(sys.argv[2]).stat().st_size)
    else:
        main()
