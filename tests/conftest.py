"""What holds for every test: Hypothesis profiles, both event loops, strict hooks, no blocking call on the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tfgrpo.testing import strict_hooks

# Machines are shared and noisy: a deadline would test the neighbours. Derandomised: a red push is a real one.
settings.register_profile(
    "push", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
settings.register_profile(
    "nightly", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=2_000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "push"))

TESTS = Path(__file__).parent
#: Rooms whose async tests run on both loops; elsewhere a second loop costs more than it tells.
BOTH_LOOPS = (TESTS / "unit",)
#: Rooms in which a blocking call on the loop is an error.
UNBLOCKED = tuple(TESTS / "unit" / room for room in ("dispatch", "rollout", "engine"))


def pytest_asyncio_loop_factories(
    config: pytest.Config,
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the async tests of cheap rooms on asyncio and on uvloop, all others on asyncio."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    costly = item.get_closest_marker("one_loop") or item.get_closest_marker("nightly")
    if _within(item.path, BOTH_LOOPS) and not costly:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(autouse=True)
def hooks_are_strict(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a hook that raises fail its test."""
    if request.node.get_closest_marker("lenient_hooks"):
        yield
        return
    with strict_hooks():
        yield


@pytest.fixture(autouse=True)
def nothing_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which our code blocks the event loop."""
    if not _within(request.node.path, UNBLOCKED) or request.node.get_closest_marker("may_block"):
        yield
        return
    from blockbuster import blockbuster_ctx

    with blockbuster_ctx("tfgrpo", excluded_modules=["tfgrpo.testing"]) as guard:
        # It joins its threads, which have nothing left to do.
        guard.functions["threading.Lock.acquire"].can_block_in("tfgrpo/journal/journal.py", "aclose")
        yield


def _within(path: Path, rooms: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(room) for room in rooms)
