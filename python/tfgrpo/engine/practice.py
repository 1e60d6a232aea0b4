"""The practice loop: epochs of batches, one step each, the library handed from step to step.

A step may start before the one before it has ended (`practice.max_staleness`). Which libraries it reads is a
matter of its number alone, never of timing, so a run stays a function of its inputs.
"""

from __future__ import annotations

from collections import Counter

import anyio
import anyio.to_thread

from tfgrpo.engine.context import Context
from tfgrpo.engine.gate import Gate
from tfgrpo.engine.plan import Batch, plan, rollouts
from tfgrpo.engine.records import GroupRecord, StepRecord, StoredLibrary, library_key, stored_library
from tfgrpo.engine.step import run_step
from tfgrpo.errors import InvalidRequestError, UnmeasuredError
from tfgrpo.events import PhaseFinished, PhaseStarted, StepStarted
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.tasks import gather_ordered
from tfgrpo.types import Signal

_PRACTICE = Key("practice")


async def run_practice(context: Context, library: ExperienceLibrary, gate: Gate) -> ExperienceLibrary:
    """Run every step of the plan; steps that the store holds as closed are not run again.

    Args:
        context: the open parts of the run.
        library: v_0, usually empty.
        gate: decides which lessons and libraries are kept.

    Returns:
        The learned library.

    Raises:
        RunStoppedError, JournalError: the run cannot go on; `tfgrpo resume` continues at the next call.
        UnmeasuredError: the distiller refused whatever it was asked.
    """
    method = context.method
    batches = plan(method, context.practice_tasks)
    work = [rollouts(method, batch) for batch in batches]
    context.hooks.emit(
        PhaseStarted(
            key=_PRACTICE.text,
            phase="practice",
            tasks=sum(one.blocks for one in work),
            rollouts=sum(one.attempts for one in work),
        )
    )
    libraries = Libraries(library)

    async def one(batch: Batch) -> None:
        seen = await libraries.after(batch.reads)
        key = _PRACTICE.of(step=batch.step)
        context.hooks.emit(
            StepStarted(
                key=key.text,
                parent=_PRACTICE.text,
                step=batch.step,
                steps=len(batches),
                epoch=batch.epoch,
                tasks=len(batch.tasks),
            )
        )
        closed = await context.store.get("step", key, StepRecord)
        if closed is None:
            learned = await run_step(
                context,
                gate,
                batch.step,
                batch.epoch,
                batch.tasks,
                seen,
                lambda: libraries.after(batch.step - 1),
            )
        else:
            stored = await context.store.get("library", library_key(closed.digest), StoredLibrary)
            learned = stored_library(stored, closed)
        if context.directory is not None:
            path = context.directory / f"v{learned.version:04d}.json"
            await anyio.to_thread.run_sync(learned.save, path)
        libraries.put(batch.step, learned)

    await gather_ordered(batches, one)
    await _check_distiller(context)
    usage = context.dispatcher.budget.spent
    context.hooks.emit(PhaseFinished(key=_PRACTICE.text, phase="practice", usage=usage))
    return await libraries.after(len(batches))


async def _check_distiller(context: Context) -> None:
    """See whether the distiller answered at all, where it was asked.

    Raises:
        UnmeasuredError: every group that could teach ended in a refusal.
    """
    refusals: Counter[str] = Counter()
    async for _, record in context.store.records("group", GroupRecord):
        fault = record.fault
        if fault is None and record.signal is not Signal.MIXED and record.advantage is None:
            continue  # it had nothing to teach
        if fault is None or fault.error != InvalidRequestError.__name__:
            return
        refusals[fault.message] += 1
    if refusals:
        (message, _), total = refusals.most_common(1)[0], refusals.total()
        raise UnmeasuredError(
            f"Nothing could be learned: the distiller's endpoint refused {total:,} of {total:,} groups that could "
            f"teach, with {InvalidRequestError.__name__}: {message} Mend that and start a new run."
        )


class Libraries:
    """The library after each step, for whoever waits for it."""

    def __init__(self, start: ExperienceLibrary) -> None:
        self._known = {0: start}
        self._there: dict[int, anyio.Event] = {}

    async def after(self, step: int) -> ExperienceLibrary:
        """The library after a step; the one the run starts with after step 0."""
        if step not in self._known:
            await self._there.setdefault(step, anyio.Event()).wait()
        return self._known[step]

    def put(self, step: int, library: ExperienceLibrary) -> None:
        """A step has ended."""
        self._known[step] = library
        if step in self._there:
            self._there[step].set()
