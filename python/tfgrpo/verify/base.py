"""The common parts of the comparing verifiers."""

from __future__ import annotations

from tfgrpo.errors import VerifierError
from tfgrpo.types import Reward, Task


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
