"""The server's token buckets: what they let through, how long they make wait, and that headers tell it exactly."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tfgrpo.models.limits import LimitReader
from tfgrpo.testing.loopback import RatePlan
from tfgrpo.testing.loopback.rates import Rates

plans = st.builds(
    RatePlan,
    requests=st.sampled_from([1.0, 60.0, 500.0]),
    tokens=st.none() | st.sampled_from([600.0, 90_000.0]),
    burst=st.sampled_from([0.05, 0.5, 1.0]),
    headers=st.sampled_from(["openai", "anthropic", "draft"]),
)
calls = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50)), max_size=40)


@given(plans, calls)
def test_no_more_than_the_plan_permits_and_waiting_as_told_is_enough(
    plan: RatePlan, asked: list[tuple[float, int]]
) -> None:
    rates, now, requests, tokens, largest = Rates(plan), 0.0, 0, 0, 0
    for pause, size in asked:
        now += pause
        wait = rates.take(size, now)
        if wait is not None:
            assert wait > 0
            assert rates.take(size, now + wait / 2) is not None, "nor is a shorter wait enough"
            now += wait + 1e-6
            assert rates.take(size, now) is None
        requests, tokens, largest = requests + 1, tokens + size, max(largest, size)
        assert plan.requests is not None
        whole = max(1.0, plan.requests * plan.burst) + plan.requests * now / 60
        assert requests <= whole + 1e-3
        if plan.tokens is not None:
            assert tokens <= plan.tokens * plan.burst + plan.tokens * now / 60 + largest + 1e-3


@given(plans, calls)
def test_the_headers_of_every_family_are_read_back(plan: RatePlan, asked: list[tuple[float, int]]) -> None:
    rates, reader, now = Rates(plan), LimitReader(clock=lambda: 0.0), 0.0
    for pause, size in asked:
        now += pause
        rates.take(size, now)
        readings = {reading.kind: reading for reading in reader.read(CIMultiDict(rates.headers(now)))}
        assert readings.keys() == {"requests"} | ({"tokens"} if plan.tokens else set())
        for kind, reading in readings.items():
            bucket = rates._buckets[kind]
            assert reading.limit == bucket.limit
            assert reading.remaining == max(0, math.floor(bucket.left(now)))
            assert reading.reset is not None
            # A timestamp of whole seconds is measured from a `Date` of whole seconds.
            assert reading.reset == pytest.approx(bucket.wait(bucket.size, now), abs=1.0)
            assert reading.window == (60.0 if plan.headers == "draft" else None)


def test_a_call_that_never_fits_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    rates = Rates(RatePlan(tokens=60.0, burst=0.5))
    assert rates.take(45, 0.0) is None
    assert rates.take(1, 0.0) == pytest.approx(16)
    assert rates.headers(0.0)["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize(("headers", "names"), [("none", []), ("openai", ["limit", "remaining", "reset"])])
def test_hidden_limits_are_not_told(headers: Literal["none", "openai"], names: list[str]) -> None:
    told = Rates(RatePlan(requests=5, headers=headers)).headers(0.0)
    assert told == {"Date": "Mon, 02 Jan 2023 00:00:00 GMT"} | {
        f"x-ratelimit-{name}-requests": value for name, value in zip(names, ["5", "5", "0ms"], strict=False)
    }
