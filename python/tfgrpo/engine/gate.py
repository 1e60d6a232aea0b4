"""Selection by gain: a lesson or a library stays only if re-run practice rollouts do not lose by it.

Practice rollouts are spent, never held-out data, so that the verdict stays honest.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import anyio

from tfgrpo.dispatch.priority import Priority
from tfgrpo.distill.propose import addition
from tfgrpo.engine.context import Context, each
from tfgrpo.engine.group import run_rollouts
from tfgrpo.engine.records import GateArm, key_of
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import Group, Rollout, SemanticAdvantage, Task


class Rewards:
    """The rewards of a step's groups as they close, so that a probe can wait for those it compares with."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self._means: dict[str, float | None] = {}
        self._closed = {task.id: anyio.Event() for task in tasks}

    def put(self, group: Group) -> None:
        """A group has closed."""
        self._means[group.task_id] = mean_reward(group.rollouts)
        self._closed[group.task_id].set()

    async def mean(self, task: Task) -> float | None:
        """The mean reward of a task's group in this step; None where nothing was graded."""
        await self._closed[task.id].wait()
        return self._means[task.id]


async def choose_lesson(
    context: Context,
    step: int,
    task: Task,
    library: ExperienceLibrary,
    advantages: Sequence[SemanticAdvantage],
    rewards: Rewards,
) -> tuple[SemanticAdvantage | None, float | None]:
    """The advantage whose lesson gains most on re-run rollouts, and its gain; none if none gains.

    A candidate is tried on its own task and on `practice.probe_tasks` others of the batch, against the mean
    reward that the groups of those tasks had with the library that the step rolls out with.

    Without `select = "gain"` the first advantage stands, untried.
    """
    practice = context.config.practice
    if practice.select == "none":
        return advantages[0], None
    others = [other for other in rewards.tasks if other.id != task.id]
    draw = random.Random(f"{context.config.run.seed}/{step}/{task.id}")
    probes = [task, *draw.sample(others, min(practice.probe_tasks, len(others)))]

    async def gain(number: int) -> float | None:
        operation = addition(advantages[number], library.version, task.id)
        assembler = context.assembler(library.apply((operation,))[0], rewards.tasks)
        convoy = context.convoy(assembler, probes)

        async def one(probe: Task) -> float | None:
            before = await rewards.mean(probe)
            key = key_of("probe", step, task.id, number, probe.id)
            tried = await run_rollouts(
                context,
                key,
                probe,
                assembler,
                range(practice.group_size),
                convoy,
                temperature=practice.temperature,
                priority=Priority.FINISH,
            )
            after = mean_reward(tried)
            return None if before is None or after is None else after - before

        differences = [d for d in await each(probes, one) if d is not None]
        return sum(differences) / len(differences) if differences else None

    gains = await each(range(len(advantages)), gain)
    tried = [(value, -number) for number, value in enumerate(gains) if value is not None]
    if not tried:
        return None, None
    best, negative = max(tried)
    return (advantages[-negative] if best > 0 else None), best


async def choose_library(
    context: Context, step: int, libraries: Mapping[str, ExperienceLibrary]
) -> tuple[str, tuple[GateArm, ...]]:
    """Which of a step's libraries becomes the next, and how each did at the gate.

    Args:
        context: the open parts of the run.
        step: number of the step.
        libraries: "old" (the newest there is) and, where there are any, "proposed" (the proposals as they are) and
            "consolidated", in this order.

    Returns:
        Without a gate the last. With `select = "gain"`, the last of those with the highest mean reward on
        re-run practice tasks: a new library must not lose against the old one, nor a consolidated one
        against the proposals it replaces. Libraries of equal digest are tried once.
    """
    different: dict[str, str] = {}
    for name, library in libraries.items():  # of equal libraries the earliest name at the latest place
        different[library.digest] = different.pop(library.digest, name)
    names = list(different.values())
    if context.config.practice.select == "none" or len(names) == 1:
        return names[-1], ()
    practice = context.config.practice
    draw = random.Random(f"{context.config.run.seed}/gate/{step}")
    tasks = context.practice_tasks
    sample = draw.sample(tasks, min(practice.gate_tasks, len(tasks)))

    async def mean(name: str) -> GateArm:
        assembler = context.assembler(libraries[name], sample)
        convoy = context.convoy(assembler, sample)
        groups = await each(
            sample,
            lambda task: run_rollouts(
                context,
                key_of("gate", step, name, task.id),
                task,
                assembler,
                range(practice.gate_samples),
                convoy,
                temperature=practice.temperature,
                priority=Priority.FINISH,
            ),
        )
        graded = [rollout for rollouts in groups for rollout in rollouts if rollout.reward is not None]
        return GateArm(name, mean_reward(graded) or 0.0, len(graded))

    arms = await each(names, mean)
    best = max(arm.mean for arm in arms)
    chosen = [arm.name for arm in arms if arm.mean == best and arm.rollouts][-1:]
    return (chosen[0] if chosen else "old"), tuple(arms)


def mean_reward(rollouts: Sequence[Rollout]) -> float | None:
    """The mean of the rewards there are; None where there are none."""
    values = [rollout.reward.value for rollout in rollouts if rollout.reward is not None]
    return sum(values) / len(values) if values else None
