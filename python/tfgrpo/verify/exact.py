"""The exact verifier: the answer is right when its normalised form equals that of the truth."""

from __future__ import annotations

from tfgrpo.protocols import Scope
from tfgrpo.types import Reward
from tfgrpo.verify.answer import final_answer, normalise
from tfgrpo.verify.base import missing_field, required_truth


class ExactVerifier:
    r"""Compares the final answer with `task.truth`, both normalised.

    The answer is the content of the last `\boxed{…}` or `<answer>…</answer>`, else the whole reply; an answer
    buried in a sentence is wrong. With `field` it is that property of the JSON object in the reply. The
    normalisation is that of `tfgrpo.verify.answer.normalise`; `Reward.answer` is the normalised answer.
    """

    needs_truth = True

    def __init__(self, field: str | None = None) -> None:
        self._field = field

    async def verify(self, scope: Scope) -> Reward:
        """Grade one answer with 1 or 0, without awaiting anything.

        Raises:
            VerifierError: the task has no truth.
        """
        truth = required_truth(scope.task, "exact")
        answer = final_answer(scope.answer, self._field)
        if answer is None:
            return missing_field(str(self._field))
        given = normalise(answer)
        return Reward(float(given == normalise(truth)), given)

    async def aclose(self) -> None:
        """Nothing is held."""
