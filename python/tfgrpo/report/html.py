"""From a run's records to its page: `report.html`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tfgrpo.dataset import load_dataset
from tfgrpo.errors import DataError
from tfgrpo.report.page import FaultRow, TaskRow, page
from tfgrpo.report.records import RunRecords
from tfgrpo.report.result import Result
from tfgrpo.types import Fault, Rollout

_EXAMPLES = 2  # different answers shown of each arm and task


def render(result: Result, records: RunRecords) -> str:
    """The page of a finished run."""
    steps, groups = records.steps, records.groups
    faults = [rollout.fault for rollout in records.rollouts]
    faults += [*(group.fault for group in groups), *(step.fault for step in steps)]
    return page(
        result,
        library=records.library.entries,
        tasks=list(_rows(records)),
        dropped=[drop for step in steps for drop in (*step.dropped, *step.report.dropped)],
        faults=fault_rows(fault for fault in faults if fault is not None),
        settings=records.header.config,
    )


def fault_rows(faults: Iterable[Fault]) -> list[FaultRow]:
    """Faults counted by kind and error class, the most frequent first."""
    found: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        found.setdefault((fault.kind.value, fault.error), []).append(fault.message)
    rows = [
        FaultRow(kind=kind, error=error, count=len(messages), message=messages[0])
        for (kind, error), messages in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.count, row.kind, row.error))


def _rows(records: RunRecords) -> Iterator[TaskRow]:
    truths = _truths(records)
    learned = records.learned.rewards()
    baseline = records.baseline.rewards() if records.baseline is not None else {}
    for task_id, rollouts in records.learned.rollouts.items():
        before = records.baseline.rollouts.get(task_id, ()) if records.baseline is not None else ()
        yield TaskRow(
            task_id=task_id,
            input=_input((*rollouts, *before)),
            truth=truths.get(task_id),
            baseline_mean=_mean(baseline.get(task_id)),
            learned_mean=_mean(learned[task_id]),
            baseline_answers=_answers(before),
            learned_answers=_answers(rollouts),
        )


def _truths(records: RunRecords) -> dict[str, str | None]:
    """The truths by task; none when the data file has moved or changed since the run."""
    try:
        data = load_dataset(records.config.data.held_out, key="data.held_out")
    except DataError:
        return {}
    return {task.id: task.truth for task in data.tasks} if data.digest == records.header.held_out else {}


def _input(rollouts: Iterable[Rollout]) -> str:
    users = (m.content for r in rollouts for m in r.trajectory.messages if m.role == "user")
    return next(users, "")


def _mean(rewards: Sequence[float] | None) -> float | None:
    return sum(rewards) / len(rewards) if rewards else None


def _answers(rollouts: Iterable[Rollout]) -> tuple[str, ...]:
    answers = [r.trajectory.answer for r in rollouts if r.reward is not None]
    return tuple(dict.fromkeys(answers))[:_EXAMPLES]
