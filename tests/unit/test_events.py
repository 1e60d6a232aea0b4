"""Hooks run beside the call path: one that raises is switched off once, an async one is refused, `wants` filters."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tfgrpo.errors import ConfigError, HookError
from tfgrpo.events import Event, Hooks, Noted, PhaseFinished, Warned
from tfgrpo.testing import strict_hooks

NOTE = Noted("a note")


class Broken:
    """Raises on every event but warnings."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        raise KeyError("a bug in the hook")


@pytest.mark.lenient_hooks
def test_a_hook_that_raises_is_switched_off_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    broken, heard = Broken(), list[Event]()
    hooks = Hooks([broken, heard.append])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            hooks.emit(NOTE)
    assert broken.seen == [NOTE]
    assert [event for event in heard if isinstance(event, Noted)] == [NOTE] * 3
    (warned,) = [event for event in heard if isinstance(event, Warned)]
    assert "Broken raised KeyError on Noted" in warned.message
    assert "switched off" in warned.message
    assert [record.getMessage() for record in caplog.records] == [warned.message]


@pytest.mark.lenient_hooks
def test_the_warning_of_a_hook_that_cannot_hear_it_ends_as_well() -> None:
    class Deaf(Broken):
        pass

    one, other = Deaf(), Deaf()
    hooks = Hooks([one, other])
    hooks.emit(NOTE)
    hooks.emit(NOTE)
    assert len(one.seen) == 1
    assert len(other.seen) == 1, "switched off by the warning about the first"


@pytest.mark.lenient_hooks
def test_strict_hooks_raise_what_they_raise() -> None:
    with strict_hooks():
        hooks = Hooks([Broken()])
    with pytest.raises(HookError, match="a bug in the hook") as caught:
        hooks.emit(NOTE)
    assert isinstance(caught.value.__cause__, KeyError)


def test_hooks_are_strict_in_these_tests() -> None:
    with pytest.raises(HookError):
        Hooks([Broken()]).emit(NOTE)


async def test_hooks_are_strict_in_async_tests_too() -> None:
    with pytest.raises(HookError):
        Hooks([Broken()]).emit(NOTE)


async def asynchronous(_: Event) -> None:
    raise AssertionError


class Asynchronous:
    async def __call__(self, _: Event) -> None:
        raise AssertionError


@pytest.mark.parametrize("hook", [asynchronous, Asynchronous(), "no hook", None])
def test_what_is_no_plain_function_is_refused(hook: Any) -> None:
    with pytest.raises(ConfigError, match="no plain function"):
        Hooks([hook])


def test_a_hook_gets_what_it_wants_and_what_nobody_wants_need_not_be_made() -> None:
    class Picky:
        wants = frozenset({Noted})

        def __init__(self) -> None:
            self.seen: list[Event] = []

        def __call__(self, event: Event) -> None:
            self.seen.append(event)

    picky = Picky()
    hooks = Hooks([picky])
    hooks.emit(PhaseFinished(key="practice", phase="practice"))
    hooks.emit(NOTE)
    assert picky.seen == [NOTE]
    assert hooks.wants(Noted)
    assert not hooks.wants(PhaseFinished)
    assert Hooks([picky, print]).wants(PhaseFinished)
    assert not Hooks().wants(Noted)
