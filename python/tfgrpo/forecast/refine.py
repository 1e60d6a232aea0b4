"""The rest of a run, told from its own first attempts: for agents of whose calls nobody knew the number."""

from __future__ import annotations

from collections.abc import Sequence

from tfgrpo.events import Noted
from tfgrpo.forecast.estimate import Estimate
from tfgrpo.types import Role, Rollout, Usage


def refine(estimate: Estimate, attempts: Sequence[Rollout]) -> Noted:
    """Say how many calls and tokens, and how much money, the attempts that are still to come will take.

    Args:
        estimate: of the whole run.
        attempts: the first ones that have ended, at least one; what they cost stands in them.
    """
    done = len(attempts)
    spent = sum((rollout.usage for rollout in attempts), Usage())
    left = max(estimate.total.attempts.middle - done, 0)
    seconds = sum(max(rollout.finished - rollout.started, 0) for rollout in attempts) / done
    usd = f" (${spent.usd / done:,.4f})" if spent.usd else ""
    told = (
        f"after {done:,} attempts: one takes about {spent.calls / done:.2g} calls, {spent.tokens / done:,.0f} "
        f"tokens{usd} and {seconds:,.2g} s; the other {left:,.0f} will take about "
        f"{left * spent.calls / done:,.0f} calls, {left * spent.tokens / done:,.0f} tokens"
    )
    if spent.usd:
        told += f" and ${left * spent.usd / done:,.2f}"
    questions = sum(line.attempts.middle for line in estimate.lines if line.role == Role.DISTILLER)
    if questions:
        told += f"; the distiller will be asked about {questions:,.0f} questions besides"
    return Noted(f"{told}.")
