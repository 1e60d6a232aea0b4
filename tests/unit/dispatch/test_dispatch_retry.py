"""The breaker and the allowance: an outage is met by one call at a time, and its end is found soon."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.dispatch.retry import FIRST_OPEN, LONGEST_OPEN, Allowance, Breaker
from tfgrpo.errors import AuthenticationError, ConnectError
from tfgrpo.testing import VirtualClock

DOWN = ConnectError("refused")


def opened(in_flight: int = 10) -> Breaker:
    """A breaker that so many calls in flight found the provider down with, at the time 0."""
    breaker = Breaker()
    for _ in range(in_flight):
        breaker.failed(DOWN, 0.0)
    assert breaker.is_open
    return breaker


@given(in_flight=st.integers(10, 2_000), failing=st.integers(0, 9))
def test_only_trials_keep_it_open_longer(in_flight: int, failing: int) -> None:
    """However many were in flight: it is tried after 1, 2, 4, … seconds, one call at a time, until one gets through."""
    breaker = opened(in_flight)
    tried: list[float] = []
    let_go: list[float] = []

    async def call() -> None:
        if await breaker.wait():
            tried.append(anyio.current_time())
            if len(tried) <= failing:
                breaker.failed(DOWN, anyio.current_time(), trial=True)
                return
            breaker.succeeded(anyio.current_time())
        let_go.append(anyio.current_time())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(failing + 5):
                group.start_soon(call)

    VirtualClock(grace=0).run(main)
    due: list[float] = []
    length = FIRST_OPEN
    for _ in range(failing + 1):
        due.append((due[-1] if due else 0.0) + length)
        length = min(2 * length, LONGEST_OPEN)
    assert tried == pytest.approx(due)
    assert let_go == pytest.approx([due[-1]] * 5)
    assert not breaker.is_open
    assert breaker.down_for(1e9) == 0.0


def test_a_trial_that_is_cancelled_leaves_it_to_another() -> None:
    breaker = opened()

    async def main() -> list[bool]:
        assert await breaker.wait()
        with anyio.move_on_after(1.0) as left:
            await breaker.wait()
        assert left.cancelled_caught, "one at a time"
        breaker.gave_up()
        return [await breaker.wait()]

    assert VirtualClock(grace=0).run(main) == [True]


def test_an_answer_closes_it_even_if_it_refuses() -> None:
    breaker = opened()
    breaker.failed(AuthenticationError("no such key"), 0.5)
    assert not breaker.is_open


@given(
    first=st.integers(0, 5),
    earned=st.floats(0.01, 1.0),
    successes=st.integers(0, 50),
    asked=st.integers(1, 60),
)
def test_no_more_retries_than_were_earned(first: int, earned: float, successes: int, asked: int) -> None:
    allowance = Allowance(first, earned)
    taken = []

    async def take(number: int) -> None:
        await allowance.take()
        taken.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(asked):
                group.start_soon(take, number)
            await anyio.sleep(1)
            for _ in range(successes):
                allowance.earn()
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    VirtualClock(grace=0).run(main)
    assert len(taken) <= first + earned * successes + 1e-6
    assert len(taken) == min(asked, len(taken) + int(allowance.left + 1e-9)), "none waits while there is one"
