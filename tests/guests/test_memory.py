"""Memory does not grow with the work: the small twin of `make bench-memory`."""

from __future__ import annotations

import functools
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import tfgrpo
from tfgrpo.journal.codec import Recent
from tfgrpo.types import Choice

FEW, MANY = 600, 1_800
#: Bytes that a finished call may leave behind: eight in the index, and room for the lists around it.
LEFT = 60


class Yes:
    """Answers at once, and remembers nothing."""

    group_limit = 1

    async def complete(self, request: tfgrpo.ModelRequest, **_: Any) -> tfgrpo.ModelReply:
        await anyio.lowlevel.checkpoint()
        return tfgrpo.ModelReply((Choice("yes"),), tfgrpo.Usage(1, 9, 0, 1))

    async def aclose(self) -> None:
        pass


class Graded:
    async def verify(self, scope: tfgrpo.Scope) -> float:
        return 1.0


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize("work", ["map", "attempts"])
async def test_what_is_finished_is_let_go(tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The bounded caches of messages would need thousands of calls to be full.
    monkeypatch.setattr("tfgrpo.journal.codec._references", Recent(20_000))
    monkeypatch.setattr("tfgrpo.journal.blobs._REMEMBERED", 50)

    async def some(engine: tfgrpo.Engine, first: int, last: int) -> None:
        if work == "map":
            requests = (
                (str(number), tfgrpo.ModelRequest((tfgrpo.Message("user", f"question {number}"),)))
                for number in range(first, last)
            )
            async for _key, outcome in engine.map(requests):
                assert isinstance(outcome, tfgrpo.ModelReply)
            return
        for start in range(first, last, 50):
            async with anyio.create_task_group() as tasks:
                for number in range(start, start + 50):
                    task = tfgrpo.Task(f"t{number}", f"question {number}")
                    tasks.start_soon(functools.partial(engine.attempt, task, verifier=Graded()))

    limits = tfgrpo.Limits(concurrency=64, requests_per_minute=600_000_000)
    async with tfgrpo.Engine(Yes(), store=tmp_path / "job.db", limits=limits) as engine:
        tracemalloc.start()
        try:
            await some(engine, 0, FEW)
            before = held()
            await some(engine, FEW, MANY)
            grown = held() - before
        finally:
            tracemalloc.stop()
    assert grown < LEFT * (MANY - FEW) + 100_000, f"{grown / (MANY - FEW):.0f} bytes a call"
