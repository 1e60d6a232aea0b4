"""The waiting around the core: order, places, cancellation, waking. On a clock that jumps."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from tfgrpo._core import CoreError
from tfgrpo.dispatch.admission import Admission
from tfgrpo.testing import VirtualClock

Log = list[tuple[str, float]]


def timed(body: Callable[[Log], Awaitable[None]]) -> list[tuple[str, float]]:
    """Runs `body` in virtual time; its log has times since the start, rounded to microseconds."""
    log: Log = []

    async def main() -> float:
        start = anyio.current_time()
        await body(log)
        return start

    start = VirtualClock().run(main)
    return [(what, round(when - start, 6)) for what, when in log]


async def call(
    admission: Admission, log: Log, name: str, lasts: float = 0.0, *, priority: int = 0, tokens: int = 0
) -> None:
    async with admission.slot(priority=priority, input_tokens=tokens) as lease:
        lease.sent()
        log.append((name, anyio.current_time()))
        await anyio.sleep(lasts)


def test_places_are_given_in_order_of_arrival() -> None:
    async def body(log: Log) -> None:
        admission = Admission(concurrency=2)
        async with anyio.create_task_group() as group:
            for name in "abcde":
                group.start_soon(call, admission, log, name, 1.0)

    assert timed(body) == [("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 1.0), ("e", 2.0)]


def test_the_lower_priority_number_goes_first() -> None:
    async def body(log: Log) -> None:
        admission = Admission(concurrency=1)
        async with anyio.create_task_group() as group:
            group.start_soon(call, admission, log, "first", 1.0)
            await anyio.sleep(0.1)
            for name, priority in [("later", 1), ("soon", -1), ("next", 0)]:
                group.start_soon(lambda n, p: call(admission, log, n, 1.0, priority=p), name, priority)

    assert [name for name, _ in timed(body)] == ["first", "soon", "next", "later"]


def test_a_rate_wakes_those_who_wait_without_any_release() -> None:
    async def body(log: Log) -> None:
        admission = Admission(requests_per_minute=60)
        async with anyio.create_task_group() as group:
            for name in "abcd":
                group.start_soon(call, admission, log, name, 100.0)

    assert timed(body) == [("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0)]


def test_settled_tokens_count_and_large_calls_are_not_overtaken() -> None:
    async def body(log: Log) -> None:
        admission = Admission(tokens_per_minute=60_000)
        async with admission.slot(input_tokens=500) as lease:
            lease.done((3000, 0))
        async with anyio.create_task_group() as group:
            for name, tokens in [("large", 5000), ("small", 1)]:
                group.start_soon(lambda n, t: call(admission, log, n, tokens=t), name, tokens)

    # 1000 tokens a second: 3000 used leave a debt of 2000, and a large call needs the full second's worth.
    assert timed(body) == [("large", 3.0), ("small", 7.001)]


def test_a_429_pauses_everyone() -> None:
    async def body(log: Log) -> None:
        admission = Admission()
        async with admission.slot() as lease:
            lease.sent()
            lease.rate_limited(7.5)
        state = admission.snapshot()
        assert state.paused_until == pytest.approx(anyio.current_time() + 7.5)
        async with anyio.create_task_group() as group:
            for name in "ab":
                group.start_soon(call, admission, log, name)
            await anyio.sleep(1)
            assert (admission.snapshot().waiting, admission.snapshot().binding) == (2, "provider cut")

    # One call got through in the quarter second that is looked at, so half of that pace is tried.
    assert timed(body) == [("a", 7.5), ("b", 8.0)]


def test_a_cancelled_waiter_leaves_the_queue_and_the_next_keeps_the_alarm() -> None:
    async def body(log: Log) -> None:
        admission = Admission(requests_per_minute=60)
        await call(admission, log, "first")

        async def impatient() -> None:
            with anyio.move_on_after(0.5):
                await call(admission, log, "never")

        async with anyio.create_task_group() as group:
            group.start_soon(impatient)  # the first to wait, so the one whose alarm is set
            group.start_soon(call, admission, log, "second")
            await anyio.sleep(0.7)
            assert (admission.snapshot().waiting, admission.snapshot().binding) == (1, "requests")

    assert timed(body) == [("first", 0.0), ("second", 1.0)]


def test_a_place_granted_to_one_who_is_being_cancelled_comes_back() -> None:
    async def body(log: Log) -> None:
        admission = Admission(concurrency=1)
        scope = anyio.CancelScope()

        async def doomed() -> None:
            with scope:
                await call(admission, log, "never")

        async with anyio.create_task_group() as group:
            async with admission.slot():
                group.start_soon(doomed)
                await anyio.sleep(1)
                scope.cancel()
            # Leaving granted the place to a waiter that is being cancelled and has not run since.
            assert (admission.snapshot().in_flight, admission.snapshot().waiting) == (1, 0)
            await call(admission, log, "next")
        assert (admission.snapshot().in_flight, admission.snapshot().waiting) == (0, 0)

    assert timed(body) == [("next", 1.0)]


def test_an_exception_inside_gives_the_place_back() -> None:
    async def body(log: Log) -> None:
        admission = Admission(concurrency=1)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                async with admission.slot():
                    raise ZeroDivisionError
        await call(admission, log, "after")

    assert timed(body) == [("after", 0.0)]


def test_a_shorter_wait_found_later_resets_the_alarm() -> None:
    async def body(log: Log) -> None:
        admission = Admission(tokens_per_minute=60_000)
        async with anyio.create_task_group() as group, admission.slot(input_tokens=10_000) as lease:
            group.start_soon(lambda: call(admission, log, "waits", tokens=1000))
            await anyio.sleep(1)
            lease.done((2000, 0))  # 8000 come back: a second later instead of nine

    assert timed(body) == [("waits", 2.0)]


async def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(CoreError, match="requests_per_minute must be greater than 0"):
        Admission(requests_per_minute=0)
