"""An engine's process: reads questions as JSON lines, one answer a line. Needs nothing but the standard library.

`python -m bench.engine.child NAME` imports `bench.engines.NAME`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

#: Seconds between two looks at how late the event loop is.
LOOK = 0.01


def cpu() -> float:
    """User and system seconds of this process and of its children that ended."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Tally:
    """What came of the calls."""

    def __init__(self) -> None:
        self.answered = 0
        self.marks = 0
        self.tokens = 0
        self.errors: Counter[str] = Counter()

    def count(self, answer: Any) -> None:
        """One answer, or the error in its place."""
        if isinstance(answer, BaseException):
            self.errors[" ".join(f"{type(answer).__name__}: {answer}".split())[:160]] += 1
            return
        text, tokens = answer
        self.answered += 1
        # The server puts a mark of the request into each answer, and adds them up as well.
        self.marks += int(text[:8], 16)
        self.tokens += tokens

    def figures(self) -> dict[str, Any]:
        """As an answer to a question."""
        return {
            "answered": self.answered,
            "marks": self.marks,
            "tokens": self.tokens,
            "errors": dict(self.errors.most_common(3)),
        }


async def fan_out(
    call: Callable[[int], Awaitable[Any]],
    indices: Iterable[int],
    in_flight: int,
    deadline: float | None = None,
) -> Tally:
    """Makes all calls, so many at once; a call that fails is lost and counted.

    After `deadline` seconds the rest is given up, and lacks in the tally.
    """
    tally, left = Tally(), iter(indices)

    async def worker() -> None:
        for index in left:
            try:
                tally.count(await call(index))
            except Exception as error:  # noqa: BLE001  whatever a client raises, the call is lost
                tally.count(error)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline), asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(worker())
    return tally


async def lateness(late: list[float]) -> None:
    """How much later than asked for the event loop comes back, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK
        await asyncio.sleep(LOOK)
        late.append(loop.time() - due)


class Child:
    """Answers the questions of the runner."""

    def __init__(self, name: str) -> None:
        self.module = importlib.import_module(f"bench.engines.{name}")
        self.engine = self.module.Engine()
        factory = None
        if getattr(self.engine, "loop", "asyncio") == "uvloop":
            factory = importlib.import_module("uvloop").new_event_loop
        self.runner = asyncio.Runner(loop_factory=factory)
        self.in_flight = 1
        self.deadline: float | None = None
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    def describe(self, _ask: dict[str, Any]) -> dict[str, Any]:
        return {"engine": self.engine.describe(), "python": sys.version.split()[0]}

    def open(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Makes the engine ready and warms it up with calls of other groups than those that are measured."""
        self.in_flight = ask["in_flight"]
        self.deadline = ask.get("deadline")
        self.runner.run(self.engine.open(ask))
        warm = range(10_000_000, 10_000_000 + ask.get("warm", 0))
        if not warm:
            return {}
        return self._calls(warm).figures()

    def calls(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Makes the calls and says what they cost."""
        late: list[float] = []
        start, spent = time.perf_counter(), cpu()
        first = ask.get("first", 0)
        tally = self._calls(range(first, first + ask["calls"]), late if ask.get("lateness") else None)
        spent, wall = cpu() - spent, time.perf_counter() - start
        answer = tally.figures() | {"cpu": spent, "wall": wall, "rss": peak()}
        if late:
            late.sort()
            answer["late p99"] = late[int(len(late) * 0.99)]
            answer["late most"] = late[-1]
        return answer

    def work(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Whatever else an engine can do: a practice step, a resume."""
        start, spent = time.perf_counter(), cpu()
        answer: dict[str, Any] = self.runner.run(self.engine.work(ask))
        spent, whole = cpu() - spent, cpu()
        return {"wall": time.perf_counter() - start, "cpu": spent, "cpu whole": whole, "rss": peak()} | answer

    def close(self, _ask: dict[str, Any]) -> dict[str, Any]:
        self.runner.run(self.engine.close())
        return {}

    def _calls(self, indices: Sequence[int], late: list[float] | None = None) -> Tally:
        if hasattr(self.engine, "batch"):
            tally = Tally()
            for answer in self.engine.batch(indices):
                tally.count(answer)
            return tally
        return self.runner.run(self._fan_out(indices, late))

    async def _fan_out(self, indices: Sequence[int], late: list[float] | None) -> Tally:
        if late is None:
            return await fan_out(self.engine.call, indices, self.in_flight, self.deadline)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(lateness(late))
            tally = await fan_out(self.engine.call, indices, self.in_flight, self.deadline)
            watch.cancel()
        return tally


def peak() -> float:
    """The most memory this process had, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def main(arguments: Sequence[str]) -> None:
    # What a library prints must not come between the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    child = Child(arguments[0])
    for line in sys.stdin:
        ask = json.loads(line)
        channel.write(json.dumps(getattr(child, ask["do"])(ask)) + "\n")
        channel.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
