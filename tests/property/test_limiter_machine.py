"""The limiter as a state machine: whatever happens in whatever order, its promises hold.

No window holds more than the limit and a burst, every lease is released once, runs and priorities keep their order,
and nobody starves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tfgrpo import _core

CALLS = st.tuples(st.integers(-2, 1), st.integers(0, 2), st.integers(0, 3000), st.integers(0, 3000))
READINGS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.none() | st.floats(-1, 1e5),
        st.none() | st.floats(-1, 1e5),
        st.none() | st.floats(-1, 120),
        st.none() | st.floats(-1, 120),
    ),
    max_size=3,
)
PAUSES = st.none() | st.floats(0, 30)


class Limiter(RuleBasedStateMachine):
    """The core beside a plain account of what was asked and granted."""

    @initialize(
        concurrency=st.none() | st.integers(1, 5),
        requests=st.none() | st.integers(6, 1200),
        tokens=st.none() | st.integers(600, 600_000),
    )
    def begin(self, concurrency: int | None, requests: int | None, tokens: int | None) -> None:
        self.concurrency, self.requests, self.tokens = concurrency, requests, tokens
        self.core = _core.Admission(
            concurrency=concurrency, requests_per_minute=requests, tokens_per_minute=tokens
        )
        self.now = 1.0
        self.waiting: dict[int, tuple[int, int, int, int]] = {}
        self.flying: dict[int, tuple[int, int, int, int]] = {}
        self.sent: set[int] = set()
        self.over: list[int] = []
        self.granted: dict[int, float] = {}

    # --- what callers do ---------------------------------------------------------------------------------

    @rule(call=CALLS)
    def submit(self, call: tuple[int, int, int, int]) -> None:
        self.waiting[self.core.submit(*call, self.now)] = call

    @rule(most=st.integers(1, 8))
    def poll(self, most: int) -> None:
        tickets, wake = self.core.poll(self.now, most)
        assert len(tickets) <= most
        assert wake is None or wake >= self.now or not math.isfinite(wake)
        for ticket in tickets:
            call = self.waiting.pop(ticket)
            # Nobody of a higher priority waits, nor anybody of the same run who came before.
            assert all(call[0] <= other[0] for other in self.waiting.values())
            assert all(ticket < other for other, asked in self.waiting.items() if asked[:2] == call[:2]), (
                "overtaken"
            )
            self.flying[ticket] = call
            self.granted[ticket] = self.now

    @rule(seconds=st.floats(0.001, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.floats(0.001, 4000))
    def the_clock_is_set_back(self, seconds: float) -> None:
        """A clock that jumps back must not move the core."""
        self.core.snapshot(self.now - seconds)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.flying)))
        if ticket not in self.sent:
            self.core.sent(ticket, self.now)
            self.sent.add(ticket)

    @precondition(lambda self: self.sent & self.flying.keys())
    @rule(data=st.data(), readings=READINGS, refused=st.booleans())
    def headers(self, data: st.DataObject, readings: list[Any], refused: bool) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.sent & self.flying.keys())))
        self.core.read(ticket, readings, refused, self.now)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), how=st.integers(0, 5), pause=PAUSES, used=st.integers(0, 10_000))
    def end(self, data: st.DataObject, how: int, pause: float | None, used: int) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.flying)))
        release: Callable[[], None] = [
            lambda: self.core.done(ticket, self.now),
            lambda: self.core.done(ticket, self.now, (used, used)),
            lambda: self.core.rate_limited(ticket, self.now, pause),
            lambda: self.core.overloaded(ticket, self.now, pause),
            lambda: self.core.timed_out(ticket, self.now),
            lambda: self.core.failed(ticket, self.now),
        ][how]
        release()
        with pytest.raises(_core.CoreError, match="not in flight"):
            release()
        del self.flying[ticket]
        self.over.append(ticket)
        if ticket not in self.sent:
            del self.granted[ticket]  # a call that never left was no request

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        self.core.cancel(ticket)
        with pytest.raises(_core.CoreError, match="not waiting"):
            self.core.cancel(ticket)
        del self.waiting[ticket]

    # --- what always holds -------------------------------------------------------------------------------

    @invariant()
    def the_account_is_right(self) -> None:
        if not hasattr(self, "core"):
            return
        in_flight, waiting, *_ = self.core.snapshot(self.now)
        assert (in_flight, waiting) == (len(self.flying), len(self.waiting))
        assert self.concurrency is None or in_flight <= self.concurrency

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        self.nobody_starves()
        self.no_window_is_exceeded()

    def nobody_starves(self) -> None:
        """Everyone who waits is let go, if those who fly end: within bounded time and bounded looks."""
        polls = 0
        while self.waiting:
            polls += 1
            assert polls < 400, f"{len(self.waiting)} still wait at {self.now}"
            was_flying = bool(self.flying)  # then the wake is of a time before they ended
            tickets, wake = self.core.poll(self.now, 8)
            for ticket in tickets:
                self.granted[ticket] = self.now
                self.sent.add(ticket)
                self.core.sent(ticket, self.now)
                self.core.done(ticket, self.now)
                del self.waiting[ticket]
            for ticket in list(self.flying):
                if ticket not in self.sent:
                    del self.granted[ticket]
                self.core.done(ticket, self.now, (0, 0))
                del self.flying[ticket]
            if not tickets and not was_flying:
                self.now = max(self.now, wake or 0.0) + 1e-6
        for ticket in self.flying:
            self.core.failed(ticket, self.now)
        assert self.core.snapshot(self.now)[:2] == (0, 0)

    def no_window_is_exceeded(self) -> None:
        if self.requests is None:
            return
        rate, times = self.requests / 60, sorted(self.granted.values())
        burst = max(1.0, rate)
        for first, begin in enumerate(times):
            for last in range(first, len(times)):
                count = last - first + 1
                assert count <= burst + rate * (times[last] - begin) + 1e-3


TestLimiter = Limiter.TestCase
TestLimiter.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.mark.nightly
@pytest.mark.timeout(3_000)
class TestLimiterNightly(Limiter.TestCase):  # type: ignore[valid-type, misc]
    settings = settings(max_examples=20_000, stateful_step_count=60, deadline=None)
