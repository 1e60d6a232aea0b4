"""Structured fan-out: work on many items at once, results in the order of the items."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from tfgrpo.errors import FATAL_ERRORS, TfgrpoError

A = TypeVar("A")
B = TypeVar("B")


async def gather_ordered(
    items: Iterable[A],
    work: Callable[[A], Awaitable[B]],
    *,
    paid: bool = False,
    window: int | None = None,
) -> list[B]:
    """Work on all items at once; results in the order of the items, whatever finishes first.

    The first error of any item cancels all others, and is raised as it is, not in a group: what stops the run
    before what spoils one item, where both happened.

    Args:
        items: what to work on; taken one by one as there is room.
        work: on one of them.
        paid: what spoils one item leaves the others to end, since their calls are paid; then the first error in the
            order of the items is raised. Only for items that do not wait for one another.
        window: how many items are under way at once; None for all. Items that wait for one another need None.

    Cancellation: cancels all items.
    """
    results: dict[int, B] = {}
    spoilt: dict[int, TfgrpoError] = {}
    room = None if window is None else anyio.Semaphore(window)

    async def one(index: int, item: A) -> None:
        try:
            results[index] = await work(item)
        except TfgrpoError as error:
            if not paid or isinstance(error, FATAL_ERRORS):
                raise
            spoilt[index] = error
        finally:
            if room is not None:
                room.release()

    count = 0
    try:
        async with anyio.create_task_group() as group:
            for item in items:
                if room is not None:
                    await room.acquire()
                group.start_soon(one, count, item)
                count += 1
    except BaseExceptionGroup as errors:
        told: BaseExceptionGroup[TfgrpoError] | None = errors.subgroup(TfgrpoError)
        if told is not None:
            raise _first(told) from None
        raise
    if spoilt:
        raise spoilt[min(spoilt)]
    return [results[index] for index in range(count)]


def _first(errors: BaseExceptionGroup[TfgrpoError]) -> TfgrpoError:
    """The error to raise: one that stops the run before one that spoils an item, in the order of FATAL_ERRORS."""
    found: list[TfgrpoError] = []

    def collect(group: BaseExceptionGroup[TfgrpoError]) -> None:
        for error in group.exceptions:
            if isinstance(error, BaseExceptionGroup):
                collect(error)
            else:
                found.append(error)

    collect(errors)
    families = (*FATAL_ERRORS, TfgrpoError)
    return min(found, key=lambda error: [isinstance(error, family) for family in families].index(True))
