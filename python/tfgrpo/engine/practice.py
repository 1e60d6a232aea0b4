"""The practice loop: epochs of batches, one step each, the library handed from step to step.

A step may start before the one before it has ended (`practice.max_staleness`). Which libraries it reads is a
matter of its number alone, never of timing, so a run stays a function of its inputs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio
import anyio.to_thread

from tfgrpo.config import Config
from tfgrpo.engine.context import Context, each
from tfgrpo.engine.records import StepRecord, StoredLibrary, key_of
from tfgrpo.engine.step import run_step
from tfgrpo.errors import JournalError
from tfgrpo.events import PhaseStarted, StepStarted
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import Struct, Task


class Batch(Struct, frozen=True):
    """The tasks of one step; steps and epochs count from 1."""

    step: int
    epoch: int
    tasks: tuple[Task, ...]


def plan(config: Config, tasks: Sequence[Task]) -> list[Batch]:
    """Cut every epoch into batches, shuffled by the run's seed; the remainder is a smaller last batch."""
    batches: list[Batch] = []
    size = config.practice.batch_size
    for epoch in range(1, config.practice.epochs + 1):
        order = list(tasks)
        if config.practice.shuffle:
            random.Random(f"{config.run.seed}/epoch/{epoch}").shuffle(order)
        for start in range(0, len(order), size):
            batches.append(Batch(len(batches) + 1, epoch, tuple(order[start : start + size])))
    return batches


def practice_tasks(config: Config, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks a run practises on: all, or `practice.tasks` of them drawn by the run's seed, in file order."""
    wanted = config.practice.tasks
    if wanted is None or wanted >= len(tasks):
        return tuple(tasks)
    chosen = random.Random(f"{config.run.seed}/tasks").sample(range(len(tasks)), wanted)
    return tuple(tasks[place] for place in sorted(chosen))


async def run_practice(context: Context, library: ExperienceLibrary) -> ExperienceLibrary:
    """Run every step of the plan; steps that the journal holds as closed are not run again.

    Args:
        context: the open parts of the run.
        library: v_0, usually empty.

    Returns:
        The learned library.

    Raises:
        RunStoppedError, JournalError: the run cannot go on; `tfgrpo resume` continues at the next call.
    """
    batches = plan(context.config, context.practice_tasks)
    practice = context.config.practice
    tasks = sum(len(batch.tasks) for batch in batches)
    context.hooks.emit(PhaseStarted("practice", tasks, tasks * practice.group_size))
    libraries = Libraries(library)

    async def one(batch: Batch) -> None:
        before = batch.step - 1
        seen = await libraries.after(before - min(practice.max_staleness, before))
        context.hooks.emit(StepStarted(batch.step, len(batches), batch.epoch, len(batch.tasks)))
        closed = context.journal.get("step", key_of(batch.step), StepRecord)
        if closed is None:
            learned = await run_step(
                context, batch.step, batch.epoch, batch.tasks, seen, lambda: libraries.after(before)
            )
        else:
            learned = stored_library(context.journal, closed)
        path = context.directory / "library" / f"v{learned.version:04d}.json"
        await anyio.to_thread.run_sync(learned.save, path)
        libraries.put(batch.step, learned)

    await each(batches, one)
    return await libraries.after(len(batches))


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


def stored_library(journal: Journal | JournalReader, closed: StepRecord) -> ExperienceLibrary:
    """The library that a closed step led to.

    Raises:
        JournalError: the journal holds another one, or none.
    """
    stored = journal.get("library", closed.digest, StoredLibrary)
    if stored is None:
        raise JournalError(
            f"The journal holds no library version {closed.version}, which step {closed.step} made."
        )
    library = ExperienceLibrary.from_json(stored.body.encode())
    if library.digest != closed.digest:
        raise JournalError(
            f"Library version {closed.version} in the journal has digest {library.digest}, "
            f"but step {closed.step} recorded {closed.digest}; the journal is damaged."
        )
    return library
