"""What a verifier is: a task and a trajectory in, a `Reward` out, and every failure of its own an error."""

from __future__ import annotations

from typing import Protocol

from tfgrpo.errors import VerifierError
from tfgrpo.types import Reward, Task, Trajectory


class Verifier(Protocol):
    """Grades trajectories. Any object with these two methods is one; nothing needs to be subclassed."""

    async def verify(self, task: Task, trajectory: Trajectory) -> Reward:
        """Grade the last answer of a trajectory.

        A wrong or unreadable answer is a reward of 0; a verifier that cannot tell raises instead.

        Raises:
            VerifierError: the grading itself failed; the attempt is then a fault and never a reward.
        """
        ...

    async def aclose(self) -> None:
        """Free what the verifier holds; grading afterwards is not allowed. Safe to call twice."""
        ...


def required_truth(task: Task, kind: str) -> str:
    """The ground truth that a comparing verifier needs.

    Raises:
        VerifierError: the task has none.
    """
    if task.truth is None:
        raise VerifierError(
            f'task {task.id!r} has no truth, and verifier.kind = "{kind}" compares with it: add "truth" to '
            'its record in the data file, or grade with verifier.kind = "python".'
        )
    return task.truth


def missing_field(field: str) -> Reward:
    """The grade of a reply in which `verifier.field` cannot be found: a wrong answer, not a fault."""
    return Reward(0.0, None, f"no field {field!r} in the answer")
