"""Samples come on a timer, only where somebody wants them, and end with the block whatever ends it."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from tfgrpo.dispatch.admission import Admission
from tfgrpo.dispatch.budget import Budget
from tfgrpo.dispatch.sample import name_admissions, sample, sampling
from tfgrpo.errors import ConfigError, HookError
from tfgrpo.events import Event, Hooks, Sampled, Warned
from tfgrpo.testing import VirtualClock, strict_hooks
from tfgrpo.types import Role, Usage


class Display:
    """A hook that wants samples."""

    def __init__(self, every: float | None) -> None:
        self.sample_every = every
        self.seen: list[Sampled] = []

    def __call__(self, event: Event) -> None:
        assert isinstance(event, Sampled)
        self.seen.append(event)


class Listening(Display):
    """The same, and it hears of what is switched off."""

    def __init__(self, every: float | None) -> None:
        super().__init__(every)
        self.told: list[Warned] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.told.append(event)
        else:
            super().__call__(event)


def watch(hooks: Sequence[Display], seconds: float, error: Exception | None = None) -> VirtualClock:
    clock = VirtualClock()

    async def main() -> None:
        admissions = dict.fromkeys(Role, Admission(concurrency=2))
        budget = Budget(tokens=100, spent=Usage(1, 40, 0, 10))
        async with sampling(Hooks(hooks), admissions, budget, lambda: {"budget": 3, "retry": 0}):
            async with admissions[Role.ROLLOUT].slot():
                await anyio.sleep(seconds)
            if error is not None:
                raise error

    clock.run(main)
    return clock


def test_every_hook_gets_the_samples_as_often_as_the_most_eager_wants() -> None:
    eager, slow = Display(0.5), Display(10.0)
    watch([eager, slow], 5.2)
    assert len(eager.seen) == len(slow.seen) == 10 + 1  # the last on leaving
    first = eager.seen[0]
    assert (first.at, first.budget, first.waits, first.usage.tokens) == (0.5, 0.5, {"budget": 3}, 50)
    assert list(first.admissions) == ["rollout"]
    assert first.admissions["rollout"].in_flight == 1


def test_nobody_wants_them_and_no_timer_runs() -> None:
    assert watch([Display(None)], 100.0).jumps == 1


def test_an_error_of_the_block_leaves_it_as_it_is() -> None:
    with pytest.raises(ConfigError, match="as it is"):
        watch([Display(0.5)], 1.0, ConfigError("as it is"))


def test_an_error_of_a_hook_ends_the_block_as_it_is() -> None:
    class Broken(Display):
        def __call__(self, event: Event) -> None:
            raise RuntimeError("a broken display")

    with strict_hooks(), pytest.raises(HookError, match="a broken display"):
        watch([Broken(0.5)], 1_000.0)


@pytest.mark.lenient_hooks
def test_a_broken_hook_is_switched_off_and_the_timer_goes_on() -> None:
    class Broken(Display):
        def __call__(self, event: Event) -> None:
            self.seen.append(event)  # type: ignore[arg-type]
            raise RuntimeError("a broken display")

    broken, whole = Broken(0.5), Listening(10.0)
    watch([broken, whole], 5.2)
    assert len(broken.seen) == 1
    assert len(whole.seen) == 10 + 1  # the last on leaving
    assert len(whole.told) == 1


async def test_cancelling_ends_both() -> None:
    display = Display(0.01)
    with anyio.CancelScope() as scope:
        async with sampling(Hooks([display]), {}, Budget(), dict):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_roles_that_share_an_admission_are_told_once() -> None:
    one, other = Admission(), Admission()
    named = name_admissions({Role.ROLLOUT: one, Role.DISTILLER: other, Role.JUDGE: one})
    assert named == {"rollout": one, "distiller": other}
    assert sample(named, Budget(), {}).budget is None


def test_the_tightest_budget_counts() -> None:
    spent = Usage(1, 50, 0, 0, 0.9)
    assert Budget(spent=spent).share is None
    assert Budget(tokens=100, spent=spent).share == 0.5
    assert Budget(1.0, 100, spent=spent).share == 0.9
