"""The reference's six barriers, modelled: every stage of a step waits for the last call of the stage before.

All rollouts, then all grading, all summaries, all advantages, all proposals, consolidation. Calls, prompts, latencies,
journal and the number of calls at once are ours, so only the barriers differ; no thread pool holds it back, which is
a favour to it.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from bench.engine.ours import Opened, first_library, practice_config, practice_tasks

from tfgrpo.dispatch.priority import Priority
from tfgrpo.distill import compare, consolidate, propose, summarize
from tfgrpo.engine.group import run_rollouts, signal_of
from tfgrpo.keys import Key
from tfgrpo.tasks import gather_ordered
from tfgrpo.testing import ScriptedScope
from tfgrpo.types import Group, Rollout, SemanticAdvantage, Signal, Task


class Engine:
    loop = "uvloop"

    def describe(self) -> str:
        return "the reference's six barriers a step, on our calls: same concurrency, prompts and latencies"

    async def work(self, ask: dict[str, Any]) -> dict[str, Any]:
        config = practice_config(ask)
        opened = Opened(ask, config)
        await opened.open()
        try:
            tasks = practice_tasks(ask)
            context = await opened.context(tasks)
            library = first_library()
            start = time.perf_counter()
            assembler = await context.assembler(library, tasks)
            prefix = context.step_prefix(assembler, tasks)
            asker, settings = context.asker, context.method

            async def roll_out(task: Task) -> list[Rollout]:
                # Without a truth nothing is graded yet.
                hidden = msgspec.structs.replace(task, truth=None)
                key, indices = Key("practice", 1, task=task.id), range(settings.group_size)
                return await run_rollouts(
                    context,
                    key,
                    hidden,
                    assembler,
                    indices,
                    prefix,
                    temperature=settings.temperature,
                    priority=Priority.START,
                )

            rolled = await gather_ordered(tasks, roll_out)

            async def grade(task: Task, rollout: Rollout) -> Rollout:
                reward = await context.verifier.verify(ScriptedScope(task, answer=rollout.trajectory.answer))
                return msgspec.structs.replace(rollout, reward=reward)

            graded = [
                [await grade(task, rollout) for rollout in rollouts]
                for task, rollouts in zip(tasks, rolled, strict=True)
            ]
            mixed: list[tuple[Task, Group]] = []
            for task, rollouts in zip(tasks, graded, strict=True):
                signal = signal_of(rollouts, settings.graded_needed, blind=False)
                if signal is Signal.MIXED:
                    mixed.append((task, Group(task.id, tuple(rollouts), signal)))

            async def retell(one: tuple[Task, Rollout]) -> str:
                task, rollout = one
                key = Key("distill", 1, task=task.id).do("summary", f"{rollout.index:04d}")
                return await summarize(asker, key, task, rollout, assembler.prior.text, settings.summaries)

            every = [(task, rollout) for task, group in mixed for rollout in group.rollouts]
            told = await gather_ordered(every, retell)
            summaries: dict[str, dict[int, str]] = {}
            for (task, rollout), text in zip(every, told, strict=True):
                summaries.setdefault(task.id, {})[rollout.index] = text

            async def advise(one: tuple[Task, Group]) -> SemanticAdvantage:
                task, group = one
                key = Key("distill", 1, task=task.id).do("advantage")
                return (await compare(asker, key, task, group, summaries[task.id], library))[0]

            advantages = await gather_ordered(mixed, advise)
            proposals = await gather_ordered(
                advantages,
                lambda advantage: propose(
                    asker,
                    Key("distill", 1, task=advantage.task_id).do("propose"),
                    Key("practice", 1, task=advantage.task_id).text,
                    advantage,
                    library,
                ),
            )
            operations = tuple(operation for made in proposals for operation in made.operations)
            settled = await consolidate(asker, Key("consolidate", 1), operations, library, "batch")
            learned, _ = library.apply(settled.operations)
            wall = time.perf_counter() - start
            return {
                "wall": wall,
                "taught": len(advantages),
                "entries": len(learned),
                "digest": learned.digest,
            }
        finally:
            await opened.close()
