"""The shared deadline: who falls due, who does not, and whose cancellation it is."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from tfgrpo.models.deadline import Deadline
from tfgrpo.testing import VirtualClock


def test_calls_fall_due_in_turn_and_finished_ones_do_not() -> None:
    clock = VirtualClock()
    ended: dict[str, float] = {}

    async def call(deadline: Deadline, name: str, start: float, duration: float) -> None:
        await anyio.sleep(start)
        try:
            with deadline.watch():
                await anyio.sleep(duration)
        except TimeoutError:
            name += " late"
        ended[name] = clock.now

    async def main() -> None:
        deadline = Deadline(10.0)
        async with anyio.create_task_group() as tasks:
            for call_ in [("a", 0, 50), ("b", 1, 2), ("c", 2, 50), ("d", 30, 50), ("e", 31, 9)]:
                tasks.start_soon(call, deadline, *call_)
        assert not deadline._running

    clock.run(main)
    assert ended == {"a late": 10, "b": 3, "c late": 12, "d late": 40, "e": 40}


def test_many_calls_share_one_timer() -> None:
    async def call(deadline: Deadline) -> None:
        with deadline.watch():
            await anyio.sleep(1)

    async def main() -> None:
        deadline = Deadline(600.0)
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call, deadline)
            await anyio.lowlevel.checkpoint()
            timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            assert len([timer for timer in timers if timer.when() > 500]) == 1

    VirtualClock().run(main)


@pytest.mark.parametrize("seconds", [3.0, 5.0])
def test_a_cancellation_by_others_stays_one(seconds: float) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(
                seconds, scope.cancel
            )  # before the deadline, or at the same time
            with Deadline(5.0).watch():
                await anyio.sleep(100)
        assert scope.cancelled_caught
        await anyio.sleep(10)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "nothing is left over that would cancel another wait"

    VirtualClock().run(main)


def test_other_errors_pass_and_a_deadline_can_be_used_again() -> None:
    async def main() -> None:
        deadline = Deadline(1.0)
        with pytest.raises(KeyError), deadline.watch():
            raise KeyError
        for _ in range(2):
            with pytest.raises(TimeoutError), deadline.watch():
                await anyio.sleep(2)
            with deadline.watch():
                await anyio.sleep(0.5)

    VirtualClock().run(main)
    VirtualClock().run(main)
