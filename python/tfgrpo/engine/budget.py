"""Money and tokens: what is spent, what is in flight, and the hard stop.

A call is launched only if everything spent, the most that the calls in flight may cost, and the most that it may
cost itself fit the budget; that is then settled to the actual usage. Failed attempts that may have been paid count.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from tfgrpo.config import BudgetSection
from tfgrpo.errors import BudgetError
from tfgrpo.types import Usage


class Budget:
    """The account of a run; `spent` starts at what the journal already holds: resuming goes on counting."""

    def __init__(
        self, limits: BudgetSection, spent: Usage, warn: Callable[[str], None] = lambda _message: None
    ) -> None:
        self.limits = limits
        self.spent = spent
        self._warn = warn
        self._warned = False
        self._reserved = Usage()
        self._settled = anyio.Event()
        self.waiting = 0

    async def reserve(self, most: Usage) -> None:
        """Set aside the most that a call may cost; waits while only calls in flight stand between it and the budget.

        Raises:
            BudgetError: the call does not fit even when nothing else is in flight.

        Cancellation: nothing stays reserved.
        """
        while not self.try_reserve(most):
            if self._reserved.calls == 0:
                over = self._overrun(self.spent + most)
                raise BudgetError(
                    f"The budget is spent: {over}, and the next call might overrun it. Everything is kept; "
                    "raise the budget and go on, for example: tfgrpo resume RUN --set budget.usd=10 "
                    "(or budget.tokens)."
                )
            self.waiting += 1
            try:
                await self._settled.wait()
            finally:
                self.waiting -= 1

    def try_reserve(self, most: Usage) -> bool:
        """Set the most that a call may cost aside if it fits now."""
        if self._overrun(self.spent + self._reserved + most) is not None:
            return False
        self._reserved = self._reserved + most
        return True

    def settle(self, most: Usage, actual: Usage) -> None:
        """Replace a reservation by what the call really cost."""
        self._reserved = self._reserved + _negative(most)
        self.spent = self.spent + actual
        if self.waiting:
            self._settled.set()
            self._settled = anyio.Event()
        if self._warned or (self.limits.tokens is None and self.limits.usd is None):
            return
        share = self.share()
        if share >= 0.8:
            self._warned = True
            self._warn(f"{share:.0%} of the budget is spent.")

    def _overrun(self, usage: Usage) -> str | None:
        """Which limit this usage would pass, said with what is spent so far."""
        if self.limits.tokens is not None and usage.tokens > self.limits.tokens:
            return f"{self.spent.tokens:,} of {self.limits.tokens:,} tokens"
        if self.limits.usd is not None and usage.usd > self.limits.usd:
            return f"${self.spent.usd:.4f} of ${self.limits.usd:.2f}"
        return None

    def share(self) -> float:
        """How much of the budget is spent, by the limit that is nearer; 0.0 without one."""
        shares = [0.0]
        if self.limits.tokens is not None:
            shares.append(self.spent.tokens / self.limits.tokens)
        if self.limits.usd is not None:
            shares.append(self.spent.usd / self.limits.usd)
        return max(shares)


def _negative(usage: Usage) -> Usage:
    return Usage(-usage.calls, -usage.input_tokens, -usage.cached_tokens, -usage.output_tokens, -usage.usd)
