"""The async wrapper under random loads: everyone is served or cancelled, and nothing is left behind."""

from typing import NamedTuple

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgrpo.dispatch.admission import Admission
from tfgrpo.testing import VirtualClock


class Caller(NamedTuple):
    arrives: float
    priority: int
    tokens: int
    lasts: float
    patience: float | None
    retry_after: float | None


TIMES = st.integers(0, 40).map(lambda tenths: tenths / 10)
CALLERS = st.lists(
    st.builds(
        Caller, TIMES, st.integers(-1, 1), st.integers(0, 4000), TIMES, st.none() | TIMES, st.none() | TIMES
    ),
    max_size=15,
)
LIMITS = st.fixed_dictionaries(
    {
        "concurrency": st.none() | st.integers(1, 4),
        "requests_per_minute": st.none() | st.integers(20, 600),
        "tokens_per_minute": st.none() | st.integers(10_000, 200_000),
    }
)


class Outcome(NamedTuple):
    served: set[int]
    cancelled: set[int]
    most_in_flight: int
    starts: list[float]
    left: tuple[int, int]


def play(limits: dict[str, int | None], callers: list[Caller]) -> Outcome:
    """What becomes of the callers, each of whom gives up once its patience is over."""
    served: set[int] = set()
    cancelled: set[int] = set()
    starts: list[float] = []
    flying = most = 0

    async def one(admission: Admission, place: int, caller: Caller) -> None:
        nonlocal flying, most
        await anyio.sleep(caller.arrives)
        with anyio.move_on_after(caller.patience) as scope:
            async with admission.slot(
                priority=caller.priority, run=place % 3, input_tokens=caller.tokens
            ) as lease:
                lease.sent()
                scope.deadline = float("inf")
                starts.append(anyio.current_time())
                flying += 1
                most = max(most, flying)
                await anyio.sleep(caller.lasts)
                flying -= 1
                if caller.retry_after is not None:
                    lease.rate_limited(caller.retry_after)
                served.add(place)
        if scope.cancelled_caught:
            cancelled.add(place)

    async def main() -> tuple[int, int]:
        admission = Admission(**limits)
        async with anyio.create_task_group() as group:
            for place, caller in enumerate(callers):
                group.start_soon(one, admission, place, caller)
        state = admission.snapshot()
        return state.in_flight, state.waiting

    return Outcome(served, cancelled, most, starts, VirtualClock().run(main))


@settings(max_examples=60, deadline=None)
@given(LIMITS, CALLERS)
def test_everyone_is_served_or_gave_up(limits: dict[str, int | None], callers: list[Caller]) -> None:
    outcome = play(limits, callers)
    assert outcome.served | outcome.cancelled == set(range(len(callers)))
    assert not outcome.served & outcome.cancelled
    assert all(callers[place].patience is not None for place in outcome.cancelled)
    assert outcome.left == (0, 0)


@settings(max_examples=60, deadline=None)
@given(LIMITS, CALLERS, st.integers(1, 3))
def test_places_are_never_exceeded(limits: dict[str, int | None], callers: list[Caller], places: int) -> None:
    assert play({**limits, "concurrency": places}, callers).most_in_flight <= places


@settings(max_examples=60, deadline=None)
@given(CALLERS, st.integers(20, 600))
def test_starts_keep_to_the_rate(callers: list[Caller], rate: int) -> None:
    starts = play({"requests_per_minute": rate}, callers).starts
    burst = max(1.0, rate / 60)
    for i, first in enumerate(starts):
        for j, last in enumerate(starts[i:], start=1):
            assert j <= (last - first) * rate / 60 + burst + 1e-3
