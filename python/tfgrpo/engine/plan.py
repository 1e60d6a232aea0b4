"""The plan of a run: the settings of the method, and which tasks each step practises on.

The engine carries it out and the forecast counts it, so both read the same one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from tfgrpo.types import Struct, Task


class Method(Struct, frozen=True, kw_only=True):
    """The settings of the method, as `docs/reference/configuration.md` describes them under the same names.

    `min_graded` None is more than half of `group_size`, at least two. `field` takes the answer out of a JSON reply
    where attempts are compared without ground truth. `samples` and `evaluation_temperature` are those of evaluation.
    """

    seed: int
    tasks: int | None
    epochs: int
    batch_size: int
    group_size: int
    temperature: float
    ground_truth: bool
    library_tokens: int
    shuffle: bool
    min_graded: int | None
    refills: int
    oversample: int
    max_staleness: int
    summaries: Literal["auto", "always", "never"]
    propose: Literal["model", "add"]
    consolidate: Literal["batch", "strategy", "none"]
    select: Literal["none", "gain"]
    candidates: int
    probe_tasks: int
    gate_tasks: int
    gate_samples: int
    samples: int
    evaluation_temperature: float
    system: str = ""
    field: str | None = None

    @property
    def graded_needed(self) -> int:
        """How many graded rollouts a group needs to count."""
        return min(self.min_graded or max(2, self.group_size // 2 + 1), self.group_size)


class Batch(Struct, frozen=True):
    """The tasks of one step; steps and epochs count from 1."""

    step: int
    epoch: int
    tasks: tuple[Task, ...]


def plan(method: Method, tasks: Sequence[Task]) -> list[Batch]:
    """Cut every epoch into batches, shuffled by the run's seed; the remainder is a smaller last batch."""
    batches: list[Batch] = []
    for epoch in range(1, method.epochs + 1):
        order = list(tasks)
        if method.shuffle:
            random.Random(f"{method.seed}/epoch/{epoch}").shuffle(order)
        for start in range(0, len(order), method.batch_size):
            batches.append(Batch(len(batches) + 1, epoch, tuple(order[start : start + method.batch_size])))
    return batches


def practice_tasks(method: Method, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks a run practises on: all, or `tasks` of them drawn by the run's seed, in file order."""
    wanted = method.tasks
    if wanted is None or wanted >= len(tasks):
        return tuple(tasks)
    chosen = random.Random(f"{method.seed}/tasks").sample(range(len(tasks)), wanted)
    return tuple(tasks[place] for place in sorted(chosen))
