"""A finished run, read from its store: every rollout once, one after the other, in bounded memory."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

import anyio.lowlevel
import anyio.to_thread

from tfgrpo.engine.records import (
    EvaluationRecord,
    GroupRecord,
    StepRecord,
    StoredLibrary,
    library_key,
    stored_library,
)
from tfgrpo.errors import ConfigError, JournalError
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.report.records import SHOWN, ArmRecords, FaultRow, RunRecords, Source, StepTally, TaskRow, Terms
from tfgrpo.report.result import GateArm, Groups, OperationCounts
from tfgrpo.types import DroppedOperation, Ending, Fault, Rollout, Signal

_EXAMPLES = 2  # different answers kept of each arm and task
_BREATH = 1_000  # rollouts read between two chances for other tasks of the loop


async def read_records(source: Source, terms: Terms, start: ExperienceLibrary) -> RunRecords:
    """Read a finished run: every rollout once, and again a few of those tasks that the page shows.

    Memory grows with the number of rewards, never with trajectories.

    Args:
        source: what the run made durable.
        terms: of the run.
        start: v_0, the library it began with.

    Raises:
        ConfigError: the run is not finished, or the terms name no arm or one twice.
        JournalError: the store is damaged.

    Cancellation: propagates; nothing was written.
    """
    if not terms.arms or len(set(terms.arms)) < len(terms.arms):
        raise ConfigError(
            f"The arms of a report are {', '.join(terms.arms) or 'missing'}: name at least one, each once."
        )
    counts = {arm: await _counts(source, terms, arm) for arm in terms.arms}
    faults = FaultTally()
    rollouts = _RolloutTally(counts, faults, terms.started)
    await rollouts.read(source)
    arms = rollouts.arms(terms)
    groups = await _groups(source, faults)
    steps, dropped, library = await _steps(source, groups, faults, start)
    return RunRecords(
        terms=terms,
        arms=arms,
        rows=tuple([await _row(source, terms, arms, counts, task_id) for task_id in shown_tasks(arms)]),
        library=library,
        steps=tuple(steps),
        dropped=tuple(dropped),
        faults=faults.rows(),
        usage=source.usage(),
        failures=source.faults(),
        open_intents=source.open_intents(),
        finished=rollouts.finished,
    )


async def read_arm(source: Source, terms: Terms, arm: str) -> ArmRecords:
    """Read one arm of a finished run, and nothing else.

    Raises:
        ConfigError: the run is not finished.
        JournalError: the store is damaged.

    Cancellation: propagates; nothing was written.
    """
    rollouts = _RolloutTally({arm: await _counts(source, terms, arm)}, FaultTally(), terms.started)
    await rollouts.read(source, under=f"{Key(arm).text}/")
    return rollouts.arms(terms)[arm]


def shown_tasks(arms: Mapping[str, ArmRecords]) -> list[str]:
    """The tasks that the page shows, in its order: those first that changed most in any arm."""

    def order(task_id: str) -> tuple[float, str]:
        row = TaskRow(task_id=task_id, means=tuple(arm.mean(task_id) for arm in arms.values()))
        return -max((abs(change or 0.0) for change in row.changes), default=0.0), task_id

    return heapq.nsmallest(SHOWN, task_ids(arms), key=order)


def task_ids(arms: Mapping[str, ArmRecords]) -> dict[str, None]:
    """The tasks of all arms, each once, in the order of the data."""
    return dict.fromkeys(task_id for arm in arms.values() for task_id in arm.rewards)


class FaultTally:
    """Counts faults by kind and error, and keeps the first message of each."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, fault: Fault | None) -> None:
        """Count a fault, if it is one."""
        if fault is not None:
            known = fault.kind.value, fault.error
            self._counts[known] += 1
            self._first.setdefault(known, fault.message)

    def rows(self) -> tuple[FaultRow, ...]:
        """The counts, the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(
            FaultRow(kind=kind, error=error, count=count, message=self._first[kind, error])
            for (kind, error), count in ordered
        )


class _RolloutTally:
    """Takes rollouts one by one and keeps rewards and counts of them."""

    def __init__(self, counts: Mapping[str, Mapping[str, int]], faults: FaultTally, started: float) -> None:
        self.finished = started
        self._counts = counts
        self._faults = faults
        self._rewards: dict[str, dict[str, list[float]]] = {
            arm: {task_id: [] for task_id in tasks} for arm, tasks in counts.items()
        }
        self._seen: Counter[str] = Counter()
        self._endings: Counter[tuple[str, Ending]] = Counter()

    async def read(self, source: Source, under: str = "") -> None:
        """Count every rollout whose key begins like this."""
        number = 0
        async for key, rollout in source.records("rollout", Rollout, under):
            self.add(key, rollout)
            number += 1
            if number % _BREATH == 0:
                await anyio.lowlevel.checkpoint()

    def add(self, key: Key, rollout: Rollout) -> None:
        """Count one rollout."""
        tasks = self._rewards.get(key.phase)
        if tasks is not None and rollout.task_id in tasks:
            self._seen[key.phase] += 1
        if rollout.cut_off:
            return
        self.finished = max(self.finished, rollout.finished)
        self._faults.add(rollout.fault)
        if tasks is not None and rollout.task_id in tasks:
            self._endings[key.phase, rollout.ending] += 1
            if rollout.reward is not None:
                tasks[rollout.task_id].append(rollout.reward.value)

    def arms(self, terms: Terms) -> dict[str, ArmRecords]:
        """Every arm.

        Raises:
            JournalError: rollouts are missing that a finished evaluation counts.
        """
        for arm, tasks in self._counts.items():
            missing = sum(tasks.values()) - self._seen[arm]
            if missing > 0:
                raise JournalError(
                    f"{terms.place or 'The store'}: {missing:,} rollouts of the arm {arm!r} are missing, which its "
                    "finished evaluation counts; the journal is damaged."
                )
        return {
            arm: ArmRecords(rewards, self._endings[arm, Ending.TRUNCATED], self._endings[arm, Ending.FAULTED])
            for arm, rewards in self._rewards.items()
        }


async def _counts(source: Source, terms: Terms, arm: str) -> dict[str, int]:
    """The number of rollouts of each task of a finished arm."""
    record = await source.get("evaluation", Key(arm), EvaluationRecord)
    if record is None:
        head, run = (f"{terms.place}: the", terms.place) if terms.place else ("The", "RUN")
        raise ConfigError(f"{head} run is not finished; go on with: tfgrpo resume {run}")
    return record.rollouts


class _StepGroups:
    """The groups of one step, counted."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self.signals: Counter[Signal] = Counter()

    def add(self, group: GroupRecord) -> None:
        graded = [reward for reward in group.rewards if reward is not None]
        if graded:
            self.means.append(sum(graded) / len(graded))
        self.signals[group.signal] += 1

    def counts(self) -> Groups:
        return Groups(
            mixed=self.signals[Signal.MIXED],
            uniform=self.signals[Signal.UNIFORM],
            undergraded=self.signals[Signal.UNDERGRADED],
        )


async def _groups(source: Source, faults: FaultTally) -> dict[int, _StepGroups]:
    """The groups, counted by step."""
    steps: dict[int, _StepGroups] = {}
    async for _, group in source.records("group", GroupRecord):
        steps.setdefault(group.step, _StepGroups()).add(group)
        faults.add(group.fault)
    return steps


async def _steps(
    source: Source, groups: Mapping[int, _StepGroups], faults: FaultTally, start: ExperienceLibrary
) -> tuple[list[StepTally], list[DroppedOperation], ExperienceLibrary]:
    """The steps in order, the first operations that were not applied, and the last library."""
    library, sizes = start, {start.digest: len(start)}
    last: StepRecord | None = None
    steps: list[StepTally] = []
    dropped: list[DroppedOperation] = []
    async for _, record in source.records("step", StepRecord):
        faults.add(record.fault)
        last = record if last is None or record.step > last.step else last
        if record.digest not in sizes:
            library = await _library(source, record)
            sizes[record.digest] = len(library)
        dropped += [*record.dropped, *record.report.dropped][: SHOWN - len(dropped)]
        own = groups.get(record.step, _StepGroups())
        steps.append(
            StepTally(
                step=record.step,
                epoch=record.epoch,
                tasks=len(record.task_ids),
                means=own.means,
                groups=own.counts(),
                operations=_operations(record),
                library_version=record.version,
                library_size=sizes[record.digest],
                accepted=record.chosen != "old",
                gate=tuple(
                    GateArm(name=arm.name, mean=arm.mean, rollouts=arm.rollouts) for arm in record.gate
                ),
            )
        )
    if last is not None and last.digest != library.digest:
        library = start if last.digest == start.digest else await _library(source, last)
    return sorted(steps, key=lambda step: step.step), dropped, library


async def _library(source: Source, record: StepRecord) -> ExperienceLibrary:
    """The library that a step led to."""
    stored = await source.get("library", library_key(record.digest), StoredLibrary)
    return await anyio.to_thread.run_sync(stored_library, stored, record)


def _operations(record: StepRecord) -> OperationCounts:
    report = record.report
    return OperationCounts(
        added=len(report.added),
        modified=len(report.modified),
        deleted=len(report.deleted),
        kept=len(report.kept),
        dropped=len(report.dropped) + len(record.dropped),
    )


async def _row(
    source: Source,
    terms: Terms,
    arms: Mapping[str, ArmRecords],
    counts: Mapping[str, Mapping[str, int]],
    task_id: str,
) -> TaskRow:
    """A task with examples of its answers, which are looked up by their keys."""
    text = terms.inputs.get(task_id)
    answers: list[tuple[str, ...]] = []
    for arm in arms:
        found: dict[str, None] = {}
        for index in range(counts[arm].get(task_id, 0)):
            rollout = await source.get("rollout", Key(arm, task=task_id, index=index), Rollout)
            if rollout is None or rollout.cut_off:
                continue
            if text is None:
                text = _question(rollout)
            if rollout.reward is not None:
                found[rollout.trajectory.answer] = None
            if len(found) == _EXAMPLES:
                break
        answers.append(tuple(found))
    return TaskRow(
        task_id=task_id,
        input=text or "",
        truth=terms.truths.get(task_id),
        means=tuple(arm.mean(task_id) for arm in arms.values()),
        answers=tuple(answers),
    )


def _question(rollout: Rollout) -> str | None:
    """The question as the prompt held it, where the data is no longer at hand."""
    return next((m.content for m in rollout.trajectory.messages if m.role == "user"), None)
