"""Gates: what a lesson and a step's new library have to show before they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio

from tfgrpo.dispatch import Priority
from tfgrpo.distill.propose import addition
from tfgrpo.engine.context import Context
from tfgrpo.engine.group import run_rollouts
from tfgrpo.engine.plan import probes, trial
from tfgrpo.engine.records import GateArm
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.tasks import gather_ordered
from tfgrpo.types import Group, Rollout, SemanticAdvantage, Struct, Task


class Rewards:
    """The mean rewards of a step's groups as they close, so that a gate can wait for those it compares with."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self._means: dict[str, float | None] = {}
        self._closed: dict[str, anyio.Event] = {}

    def put(self, group: Group) -> None:
        """A group has closed."""
        self._means[group.task_id] = mean_reward(group.rollouts)
        if group.task_id in self._closed:
            self._closed[group.task_id].set()

    async def mean(self, task: Task) -> float | None:
        """The mean reward of a task's group in this step; None where nothing was graded."""
        if task.id not in self._means:
            await self._closed.setdefault(task.id, anyio.Event()).wait()
        return self._means[task.id]


class Chosen(Struct, frozen=True):
    """The name of the library that becomes the next, and how each did that was tried."""

    name: str
    arms: tuple[GateArm, ...] = ()


class Gate(Protocol):
    """Decides what is kept. The same rollouts, the same decision.

    `candidates` is how many lessons a group should write; `waits` says whether a lesson waits for other groups of its
    step, which must then all be under way at once.
    """

    @property
    def candidates(self) -> int:
        """How many lessons a group writes for `lesson` to choose from."""
        ...

    @property
    def waits(self) -> bool:
        """Whether `lesson` waits for other groups of the step."""
        ...

    async def lesson(
        self,
        context: Context,
        step: int,
        task: Task,
        library: ExperienceLibrary,
        advantages: Sequence[SemanticAdvantage],
        rewards: Rewards,
    ) -> tuple[SemanticAdvantage | None, float | None]:
        """The advantage whose lesson is kept, if any, and its gain where that was measured."""
        ...

    async def library(
        self, context: Context, step: int, libraries: Mapping[str, ExperienceLibrary]
    ) -> Chosen:
        """The library that becomes the next.

        Args:
            context: the open parts of the run.
            step: number of the step.
            libraries: "old" (the newest there is) and, where there are any, "proposed" (the proposals as they are)
                and "consolidated", in this order; of different digests.
        """
        ...


class OpenGate:
    """Keeps the first lesson of each group and the last library of each step, untried."""

    candidates = 1
    waits = False

    async def lesson(
        self,
        context: Context,
        step: int,
        task: Task,
        library: ExperienceLibrary,
        advantages: Sequence[SemanticAdvantage],
        rewards: Rewards,
    ) -> tuple[SemanticAdvantage | None, float | None]:
        """See `Gate.lesson`."""
        return advantages[0], None

    async def library(
        self, context: Context, step: int, libraries: Mapping[str, ExperienceLibrary]
    ) -> Chosen:
        """See `Gate.library`."""
        return Chosen(list(libraries)[-1])


class GainGate:
    """Keeps a lesson or a library only if re-run practice rollouts do not lose by it.

    Practice rollouts are spent, never held-out data, so that the verdict stays honest.

    Args:
        candidates: lessons a group writes.
    """

    waits = True

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates

    async def lesson(
        self,
        context: Context,
        step: int,
        task: Task,
        library: ExperienceLibrary,
        advantages: Sequence[SemanticAdvantage],
        rewards: Rewards,
    ) -> tuple[SemanticAdvantage | None, float | None]:
        """The advantage whose lesson gains most on re-run rollouts, and its gain; none if none gains.

        A candidate is tried on its own task and on `probe_tasks` others of the batch, against the mean reward that
        the groups of those tasks had with the library that the step rolls out with.
        """
        method = context.method
        work = probes(method, step, task, rewards.tasks)
        source = Key("practice", step, task=task.id).text

        async def gain(number: int) -> float | None:
            operation = addition(advantages[number], library.version, source)
            assembler = await context.assembler(library.apply((operation,))[0], rewards.tasks)
            prefix = context.step_prefix(assembler, work.tasks)

            async def one(probe: Task) -> float | None:
                before = await rewards.mean(probe)
                tried = await run_rollouts(
                    context,
                    Key("probe", step, f"{task.id}/{number}", probe.id),
                    probe,
                    assembler,
                    range(work.size),
                    prefix,
                    temperature=method.temperature,
                    priority=Priority.FINISH,
                )
                after = mean_reward(tried)
                return None if before is None or after is None else after - before

            differences = [d for d in await gather_ordered(work.tasks, one) if d is not None]
            return sum(differences) / len(differences) if differences else None

        gains = await gather_ordered(range(len(advantages)), gain)
        tried = [(value, -number) for number, value in enumerate(gains) if value is not None]
        if not tried:
            return None, None
        best, negative = max(tried)
        return (advantages[-negative] if best > 0 else None), best

    async def library(
        self, context: Context, step: int, libraries: Mapping[str, ExperienceLibrary]
    ) -> Chosen:
        """The last of those with the highest mean reward on re-run practice tasks.

        A new library must not lose against the old one, nor a consolidated one against the proposals it replaces.
        """
        if len(libraries) == 1:
            return Chosen(next(iter(libraries)))
        method = context.method

        async def mean(name: str) -> GateArm:
            work = trial(method, step, name, context.practice_tasks)
            assembler = await context.assembler(libraries[name], work.tasks)
            prefix = context.step_prefix(assembler, work.tasks)
            groups = await gather_ordered(
                work.tasks,
                lambda task: run_rollouts(
                    context,
                    Key("gate", step, name, task.id),
                    task,
                    assembler,
                    range(work.size),
                    prefix,
                    temperature=method.temperature,
                    priority=Priority.FINISH,
                ),
            )
            graded = [rollout for rollouts in groups for rollout in rollouts if rollout.reward is not None]
            return GateArm(name, mean_reward(graded) or 0.0, len(graded))

        arms = await gather_ordered(libraries, mean)
        best = max(arm.mean for arm in arms)
        chosen = [arm.name for arm in arms if arm.mean == best and arm.rollouts][-1:]
        return Chosen(chosen[0] if chosen else "old", tuple(arms))


def different(libraries: Mapping[str, ExperienceLibrary]) -> dict[str, ExperienceLibrary]:
    """Libraries of equal digest once: under the earliest name, at the latest place."""
    names: dict[str, str] = {}
    for name, library in libraries.items():
        names[library.digest] = names.pop(library.digest, name)
    return {name: libraries[name] for name in names.values()}


def mean_reward(rollouts: Sequence[Rollout]) -> float | None:
    """The mean of the rewards there are; None where there are none."""
    values = [rollout.reward.value for rollout in rollouts if rollout.reward is not None]
    return sum(values) / len(values) if values else None
