"""Gathering in order: the window bounds what is under way, results follow the items, and the first error counts."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.errors import JournalError, ModelError, RunStoppedError, ServerError, UsageError
from tfgrpo.tasks import gather_ordered
from tfgrpo.testing import VirtualClock


@given(st.lists(st.floats(0.0, 100.0), max_size=20), st.none() | st.integers(1, 5))
def test_results_are_in_the_order_of_the_items_and_no_more_are_under_way_than_the_window(
    delays: list[float], window: int | None
) -> None:
    under_way = most = 0

    async def work(item: tuple[int, float]) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(item[1])
        under_way -= 1
        return item[0]

    async def main() -> list[int]:
        return await gather_ordered(enumerate(delays), work, window=window)

    assert VirtualClock().run(main) == list(range(len(delays)))
    assert most <= (window or len(delays))
    assert most == min(window or len(delays), len(delays)) or window is not None


def test_items_are_taken_as_there_is_room() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(6):
            taken.append(item)
            yield item

    async def main() -> None:
        async def work(item: int) -> None:
            await anyio.sleep(1.0)
            assert len(taken) <= item + 3

        await gather_ordered(source(), work, window=2)

    VirtualClock().run(main)
    assert taken == list(range(6))


async def fail(item: tuple[float, Exception | None]) -> float:
    await anyio.sleep(item[0])
    if item[1] is not None:
        raise item[1]
    return item[0]


def test_the_first_error_cancels_the_others_and_comes_as_it_is() -> None:
    error = ServerError("broken")

    async def main() -> float:
        with pytest.raises(ServerError) as caught:
            await gather_ordered([(500.0, None), (2.0, error), (900.0, None)], fail)
        assert caught.value is error
        return anyio.current_time()

    assert VirtualClock().run(main) == 2.0


def test_paid_work_ends_before_an_error_is_told_and_the_first_item_counts() -> None:
    first, second = ModelError("first item"), ModelError("second item")

    async def main() -> float:
        with pytest.raises(ModelError, match="first item"):
            await gather_ordered([(9.0, first), (1.0, second), (50.0, None)], fail, paid=True)
        return anyio.current_time()

    assert VirtualClock().run(main) == 50.0


def test_what_stops_the_run_stops_paid_work_too() -> None:
    stopped = RunStoppedError(UsageError("enough"))

    async def main() -> float:
        with pytest.raises(RunStoppedError):
            await gather_ordered([(1.0, ModelError("x")), (5.0, stopped), (50.0, None)], fail, paid=True)
        return anyio.current_time()

    assert VirtualClock().run(main) == 5.0


@pytest.mark.parametrize("turned", [False, True])
def test_what_stops_the_run_goes_before_what_spoils_one_item(turned: bool) -> None:
    errors = [ModelError("one item"), JournalError("the run")]

    async def main() -> None:
        items = [(1.0, error) for error in (reversed(errors) if turned else errors)]
        with pytest.raises(JournalError):
            await gather_ordered(items, fail)

    VirtualClock().run(main)


async def test_cancelling_cancels_all_items() -> None:
    ended: list[int] = []

    async def work(item: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(item)

    with anyio.move_on_after(0.01) as scope:
        await gather_ordered(range(5), work, window=2)
    assert scope.cancelled_caught
    assert sorted(ended) == [0, 1]
