"""Samples of a run on a timer: what displays show, so that no call has to be drawn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio

from tfgrpo.dispatch.admission import Admission
from tfgrpo.dispatch.budget import Budget
from tfgrpo.events import AdmissionState, Hooks, Sampled
from tfgrpo.types import Role


@asynccontextmanager
async def sampling(
    hooks: Hooks,
    admissions: Mapping[Role, Admission],
    budget: Budget,
    waits: Callable[[], Mapping[str, int]],
) -> AsyncIterator[None]:
    """Emit `Sampled` while the block runs, as often as a hook asks for; no timer at all where none does.

    Args:
        hooks: receive the samples.
        admissions: the limits of each role; those that roles share are told once.
        budget: the account of the run.
        waits: how many calls wait, by what for, other than for an admission.

    Raises:
        Exception: what a hook raises ends the block; what the block raises leaves it as it is, in no group.

    Cancellation: ends both.
    """
    every = hooks.sample_every
    if every is None:
        yield
        return
    named = name_admissions(admissions)

    async def run() -> None:
        while True:
            await anyio.sleep(every)
            hooks.emit(sample(named, budget, waits()))

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            try:
                yield
            finally:
                hooks.emit(sample(named, budget, waits()))  # the last word, however it ended
                group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def sample(named: Mapping[str, Admission], budget: Budget, waits: Mapping[str, int]) -> Sampled:
    """One sample, now."""
    states: dict[str, AdmissionState] = {name: admission.snapshot() for name, admission in named.items()}
    waiting = {reason: count for reason, count in waits.items() if count}
    return Sampled(anyio.current_time(), states, budget.spent, budget.share, waiting)


def name_admissions(admissions: Mapping[Role, Admission]) -> dict[str, Admission]:
    """Each admission under the first role that calls through it."""
    named: dict[str, Admission] = {}
    for role in Role:
        if role in admissions and admissions[role] not in named.values():
            named[role.value] = admissions[role]
    return named
