"""The plan of a run as data: the settings of the method, the batches, and the work that each of them asks for.

The engine carries it out and takes its numbers from here; the forecast goes through the same work and multiplies it by
the cost of one attempt and by the chance of its condition. The method stands in neither of them twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Literal

from tfgrpo.types import Role, Struct, Task


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
        """The number of graded rollouts that a group needs to count."""
        return min(self.min_graded or max(2, self.group_size // 2 + 1), self.group_size)

    @property
    def lessons(self) -> int:
        """The number of lessons that a group writes for the gate to choose from."""
        return self.candidates if self.select == "gain" else 1


class Batch(Struct, frozen=True):
    """The tasks of one step; steps and epochs count from 1.

    `reads` is the step after which the library was made that this step rolls out and compares with; 0 is v_0.
    """

    step: int
    epoch: int
    tasks: tuple[Task, ...]
    reads: int = 0


class Given(StrEnum):
    """The condition on which planned work is done."""

    ALWAYS = "always"
    TEACHES = "its group teaches"
    LONG = "its group teaches and the attempt is no single short answer"
    REVIEWED = "a lesson is kept and the library holds experiences that it might repeat"
    ALIKE = "a lesson is kept that has the strategy of another one"
    CHANGED = "the step has an operation to apply"
    SEVERAL = "the step has several operations to apply"


class Work(Struct, frozen=True, kw_only=True):
    """One kind of work at one place of a run: attempts at tasks, or questions to the distiller.

    `size` attempts or answers are wanted for each of `tasks`, `times` over; a question that is asked `once` is asked
    for all of them together. `given` is a condition of each task's group, or of the step.

    `reads` is the step after which the library in view was made, 0 for v_0; `tried` counts lessons that are added to
    it for a trial. `groups` is how many groups the step has.

    `spare` more attempts are started where each is a request of its own (`practice.oversample`); what faulted is asked
    for again up to `again` times. `apart` says that the `size` prompts of a task differ.
    """

    phase: str
    role: Role
    tasks: tuple[Task, ...] = ()
    size: int = 1
    times: int = 1
    given: Given = Given.ALWAYS
    step: int | None = None
    groups: int = 0
    reads: int = 0
    tried: int = 0
    spare: int = 0
    again: int = 0
    apart: bool = False
    once: bool = False

    @property
    def blocks(self) -> int:
        """The number of groups of attempts, or questions, if every condition is met."""
        return self.times * (1 if self.once else len(self.tasks))

    @property
    def attempts(self) -> int:
        """The number of attempts, or answers, that they make."""
        return self.blocks * self.size


def plan(method: Method, tasks: Sequence[Task]) -> list[Batch]:
    """Cut every epoch into batches, shuffled by the run's seed; the remainder is a smaller last batch."""
    batches: list[Batch] = []
    for epoch in range(1, method.epochs + 1):
        order = list(tasks)
        if method.shuffle:
            random.Random(f"{method.seed}/epoch/{epoch}").shuffle(order)
        for start in range(0, len(order), method.batch_size):
            before = len(batches)
            reads = max(before - method.max_staleness, 0)
            batches.append(Batch(before + 1, epoch, tuple(order[start : start + method.batch_size]), reads))
    return batches


def practice_tasks(method: Method, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks a run practises on: all, or `tasks` of them drawn by the run's seed, in file order."""
    wanted = method.tasks
    if wanted is None or wanted >= len(tasks):
        return tuple(tasks)
    chosen = random.Random(f"{method.seed}/tasks").sample(range(len(tasks)), wanted)
    return tuple(tasks[place] for place in sorted(chosen))


# --- the work of a run -----------------------------------------------------------------------------------


def run_work(method: Method, practice: Sequence[Task], held_out: Sequence[Task]) -> Iterator[Work]:
    """All work of a run, in order; without practice tasks that of an evaluation."""
    batches = plan(method, practice)
    if batches:
        yield evaluation(method, "baseline", held_out)
    for batch in batches:
        yield from step_work(method, batch, practice)
    yield evaluation(method, "learned", held_out, reads=len(batches))


def evaluation(method: Method, arm: str, tasks: Sequence[Task], reads: int = 0) -> Work:
    """The attempts at the held-out tasks under one arm; a faulted one is run once more."""
    size = method.samples
    return Work(phase=arm, role=Role.ROLLOUT, tasks=tuple(tasks), size=size, reads=reads, again=1)


def step_work(method: Method, batch: Batch, practice: Sequence[Task]) -> Iterator[Work]:
    """All that one step may ask for, in the order of METHOD."""
    yield rollouts(method, batch)
    if method.summaries != "never":
        long = Given.TEACHES if method.summaries == "always" else Given.LONG
        yield _question("summarize", batch, long, size=method.group_size, spare=method.oversample, apart=True)
    yield _question("advantage", batch, Given.TEACHES, size=method.lessons)
    if method.select == "gain":
        tried = [
            probe for task in batch.tasks for probe in probes(method, batch.step, task, batch.tasks).tasks
        ]
        yield Work(
            phase="probe",
            role=Role.ROLLOUT,
            tasks=tuple(tried),
            size=method.group_size,
            times=method.lessons,
            given=Given.TEACHES,
            step=batch.step,
            groups=len(batch.tasks),
            reads=batch.reads,
            tried=1,
        )
    if method.propose == "model":
        yield _question("propose", batch, Given.REVIEWED)
    if method.consolidate == "strategy":
        yield _question("consolidate", batch, Given.ALIKE, newest=True)
    elif method.consolidate == "batch":
        yield _question("consolidate", batch, Given.SEVERAL, newest=True, once=True)
    if method.select == "gain":
        for name in ("old", "proposed", *(["consolidated"] if method.consolidate != "none" else [])):
            yield trial(method, batch.step, name, practice, groups=len(batch.tasks))


def rollouts(method: Method, batch: Batch) -> Work:
    """The attempts of a step's groups."""
    return Work(
        phase="practice",
        role=Role.ROLLOUT,
        tasks=batch.tasks,
        size=method.group_size,
        step=batch.step,
        groups=len(batch.tasks),
        reads=batch.reads,
        spare=method.oversample,
        again=method.refills,
    )


def probes(method: Method, step: int, task: Task, tasks: Sequence[Task]) -> Work:
    """The attempts by which one lesson is tried: at its own task and at others of the batch, drawn by the seed."""
    others = [other for other in tasks if other.id != task.id]
    draw = random.Random(f"{method.seed}/{step}/{task.id}")
    chosen = (task, *draw.sample(others, min(method.probe_tasks, len(others))))
    return Work(
        phase="probe",
        role=Role.ROLLOUT,
        tasks=chosen,
        size=method.group_size,
        given=Given.TEACHES,
        step=step,
        tried=1,
    )


def trial(method: Method, step: int, name: str, practice: Sequence[Task], groups: int = 0) -> Work:
    """The attempts by which a step's library is tried: at practice tasks drawn by the run's seed.

    Args:
        method: the settings.
        step: the number of the step.
        name: of the library: "old", "proposed" or "consolidated".
        practice: all tasks of the run.
        groups: of the step.
    """
    draw = random.Random(f"{method.seed}/gate/{step}")
    return Work(
        phase="gate",
        role=Role.ROLLOUT,
        tasks=tuple(draw.sample(practice, min(method.gate_tasks, len(practice)))),
        size=method.gate_samples,
        given=Given.SEVERAL if name == "consolidated" else Given.CHANGED,
        step=step,
        groups=groups,
        reads=step - 1 if name == "old" else step,
    )


def _question(
    phase: str,
    batch: Batch,
    given: Given,
    *,
    size: int = 1,
    spare: int = 0,
    apart: bool = False,
    newest: bool = False,
    once: bool = False,
) -> Work:
    """A question that is asked for each group of a step, or `once` for all of them."""
    return Work(
        phase=phase,
        role=Role.DISTILLER,
        tasks=batch.tasks,
        size=size,
        given=given,
        step=batch.step,
        groups=len(batch.tasks),
        reads=batch.step - 1 if newest else batch.reads,
        spare=spare,
        apart=apart,
        once=once,
    )
