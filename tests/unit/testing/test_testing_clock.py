"""The virtual clock: order, no waiting, threads, deadlocks."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.testing import LoopbackServer, VirtualClock


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_sleepers_wake_in_the_order_of_their_deadlines(delays: list[float]) -> None:
    woken: list[tuple[float, float]] = []

    async def sleeper(delay: float) -> None:
        await anyio.sleep(delay)
        woken.append((delay, anyio.current_time()))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for delay in delays:
                tasks.start_soon(sleeper, delay)

    VirtualClock().run(main)
    assert [delay for delay, _ in woken] == sorted(delays)
    assert all(at == pytest.approx(delay, abs=1e-6) for delay, at in woken)


def test_a_day_takes_no_time_and_deadlines_work() -> None:
    clock = VirtualClock(start=100.0)

    async def main() -> float:
        with pytest.raises(TimeoutError), anyio.fail_after(86_400):
            await anyio.sleep_forever()
        return anyio.current_time()

    before = time.monotonic()
    assert clock.run(main) == pytest.approx(86_500)
    assert time.monotonic() - before < 1
    assert clock.now == pytest.approx(86_500)


def test_time_stands_while_an_executor_job_runs() -> None:
    async def main() -> tuple[float, bool]:
        loop = asyncio.get_running_loop()
        with anyio.move_on_after(3600) as scope:
            await loop.run_in_executor(None, time.sleep, 0.05)
        return anyio.current_time(), scope.cancelled_caught

    assert VirtualClock().run(main) == (0.0, False)


def test_time_stands_while_a_worker_thread_runs_and_idle_ones_cost_nothing() -> None:
    clock = VirtualClock(grace=5.0)

    async def main() -> tuple[float, bool]:
        with anyio.move_on_after(60) as scope:
            await anyio.to_thread.run_sync(time.sleep, 0.05)
        stood = anyio.current_time()
        for _ in range(10):
            await anyio.sleep(1000.0)
        return stood, scope.cancelled_caught

    before = time.monotonic()
    assert clock.run(main) == (0.0, False)
    assert clock.now == 10_000.0
    assert time.monotonic() - before < 5


def test_time_stands_while_it_is_held() -> None:
    clock = VirtualClock(grace=0.001)

    async def main() -> bool:
        def work() -> None:
            with clock.hold():
                begun.set()
                time.sleep(0.05)

        begun = threading.Event()
        with anyio.move_on_after(3600) as scope, clock.hold():
            await anyio.to_thread.run_sync(work)
        assert begun.is_set()
        return scope.cancelled_caught

    assert not clock.run(main)


def test_sockets_get_their_turn_before_the_clock_jumps() -> None:
    async def main() -> float:
        async with LoopbackServer(lambda _: "x") as server:
            port = int(server.base_url.split(":")[2].split("/")[0])
            with anyio.fail_after(3600):
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert b"200 OK" in await stream.receive()
        return anyio.current_time()

    assert VirtualClock(grace=0.2).run(main) < 3600


def test_a_deadlock_is_reported() -> None:
    async def main() -> None:
        await anyio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock"):
        VirtualClock().run(main)
