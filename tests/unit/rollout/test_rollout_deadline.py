"""The clock of an attempt: it begins with the first launch, and stands while all that is under way is queued."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.errors import CutOffError, TaskTimeoutError
from tfgrpo.rollout import Deadline
from tfgrpo.testing import VirtualClock


def ends_at(seconds: float, script: Callable[[Deadline], Awaitable[None]]) -> float:
    """When an attempt with a deadline ends that goes on for ever after a script."""

    async def main() -> float:
        async def attempt() -> None:
            with Deadline(seconds) as deadline:
                await script(deadline)
                await anyio.sleep_forever()

        with anyio.move_on_after(1e8), pytest.raises(TaskTimeoutError, match=r"limits\.task_timeout"):
            await attempt()
        return anyio.current_time()

    return VirtualClock().run(main)


def test_it_begins_with_the_first_launch() -> None:
    async def script(deadline: Deadline) -> None:
        await anyio.sleep(300.0)
        watch = deadline.watch()
        await anyio.sleep(200.0)
        watch.launched()

    assert ends_at(100.0, script) == 600.0


def test_it_stands_while_every_effect_is_queued_and_runs_while_one_is_not() -> None:
    async def script(deadline: Deadline) -> None:
        one, other = deadline.watch(), deadline.watch()
        await anyio.sleep(50.0)
        one.launched()
        await anyio.sleep(30.0)  # one runs, the other is queued: 30 s
        one.queued()
        await anyio.sleep(1000.0)  # a pause that the provider asked for
        other.launched()
        await anyio.sleep(20.0)  # 50 s
        other.ended()
        await anyio.sleep(1000.0)  # only the first is left, and queued
        one.launched()
        one.ended()

    assert ends_at(100.0, script) == 50.0 + 30.0 + 1000.0 + 20.0 + 1000.0 + 50.0


def test_the_agents_own_work_counts() -> None:
    async def script(deadline: Deadline) -> None:
        watch = deadline.watch()
        watch.launched()
        await anyio.sleep(10.0)
        watch.ended()
        await anyio.sleep(40.0)
        deadline.watch()  # queued until the end
        await anyio.sleep(500.0)
        deadline.watch().launched()

    assert ends_at(100.0, script) == 600.0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50)), max_size=12))
def test_the_time_that_is_left_is_what_was_not_spent_off_the_queue(phases: list[tuple[bool, int]]) -> None:
    spent = sum(seconds for queued, seconds in phases if not queued)
    total = sum(seconds for _, seconds in phases)

    async def script(deadline: Deadline) -> None:
        watch = deadline.watch()
        watch.launched()
        for queued, seconds in phases:
            if queued:
                watch.queued()
            else:
                watch.launched()
            await anyio.sleep(seconds)
        watch.launched()

    assert ends_at(1000.0, script) == pytest.approx(total + 1000.0 - spent)


def test_once_lifted_it_bounds_nothing_and_a_cut_ends_it_all_the_same() -> None:
    async def main() -> float:
        deadline = Deadline(10.0)

        async def attempt() -> None:
            with deadline:
                deadline.watch().launched()
                deadline.lift()
                await anyio.sleep_forever()

        async with anyio.create_task_group() as group:

            async def cut() -> None:
                await anyio.sleep(500.0)
                deadline.cut()

            group.start_soon(cut)
            with pytest.raises(CutOffError):
                await attempt()
        return anyio.current_time()

    assert VirtualClock().run(main) == 500.0


async def test_what_was_cut_before_it_began_never_begins() -> None:
    deadline = Deadline(10.0)
    deadline.cut()
    with pytest.raises(CutOffError), deadline:
        raise AssertionError
    assert isinstance(deadline.error, CutOffError)


async def test_cancellation_from_outside_passes_through() -> None:
    with anyio.move_on_after(0.01) as scope, Deadline(1000.0):
        await anyio.sleep_forever()
    assert scope.cancelled_caught
