"""Money and tokens: what is spent, what is in flight, and the hard stop.

A call is launched only if everything spent, the most that the calls in flight may cost, and the most that it may
cost itself fit the budget; that is then settled to the actual usage. Failed attempts that may have been paid count.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from tfgrpo.config import BudgetSection
from tfgrpo.errors import BudgetError
from tfgrpo.types import Usage

#: The share of a budget that is warned of.
WARN_AT = 0.8


class Budget:
    """The account of a run; `spent` starts at what the journal already holds: resuming goes on counting."""

    def __init__(
        self, limits: BudgetSection, spent: Usage, warn: Callable[[str], None] = lambda _message: None
    ) -> None:
        self.limits = limits
        self.spent = spent
        self._warn = warn
        self._warned = False
        # What is set aside for calls in flight, as plain numbers: this is done for every call.
        self._tokens = math.inf if limits.tokens is None else limits.tokens
        self._usd = math.inf if limits.usd is None else limits.usd
        self._reserved_calls = self._reserved_tokens = 0
        self._reserved_usd = 0.0
        self._settled = anyio.Event()
        self.waiting = 0

    async def reserve(self, most: Usage) -> None:
        """Set aside the most that a call may cost; waits while only calls in flight stand between it and the budget.

        Raises:
            BudgetError: the call does not fit even when nothing else is in flight.

        Cancellation: nothing stays reserved.
        """
        while not self.try_reserve(most):
            if self._reserved_calls == 0:
                raise BudgetError(
                    f"The budget is spent: {self._overrun(most)}, and the next call might overrun it. Everything is "
                    "kept; raise the budget and go on, for example: tfgrpo resume RUN --set budget.usd=10 "
                    "(or budget.tokens)."
                )
            self.waiting += 1
            try:
                await self._settled.wait()
            finally:
                self.waiting -= 1

    def try_reserve(self, most: Usage) -> bool:
        """Set the most that a call may cost aside if it fits now."""
        spent, tokens = self.spent, most.input_tokens + most.output_tokens
        if spent.input_tokens + spent.output_tokens + self._reserved_tokens + tokens > self._tokens:
            return False
        if self._usd < math.inf and spent.usd + self._reserved_usd + most.usd > self._usd:
            return False
        self._reserved_calls += 1
        self._reserved_tokens += tokens
        self._reserved_usd += most.usd
        return True

    def settle(self, most: Usage, actual: Usage) -> None:
        """Replace a reservation by what the call really cost."""
        self._reserved_calls -= 1
        self._reserved_tokens -= most.input_tokens + most.output_tokens
        # Sums of fractions leave dust.
        self._reserved_usd = self._reserved_usd - most.usd if self._reserved_calls else 0.0
        self.spent = self.spent + actual
        if self.waiting:
            self._settled.set()
            self._settled = anyio.Event()
        if self._warned:
            return
        share = budget_share(self.limits, self.spent)
        if share is not None and share >= WARN_AT:
            self._warned = True
            self._warn(f"{share:.0%} of the budget is spent.")

    def _overrun(self, most: Usage) -> str:
        """Which limit a call would pass, said with what is spent so far."""
        if self.limits.tokens is not None and self.spent.tokens + most.tokens > self.limits.tokens:
            return f"{self.spent.tokens:,} of {self.limits.tokens:,} tokens"
        return f"${self.spent.usd:.4f} of ${self._usd:.2f}"


def budget_share(limits: BudgetSection, spent: Usage) -> float | None:
    """The share of the tightest budget that is spent; None without a budget."""
    shares = []
    if limits.tokens is not None:
        shares.append(spent.tokens / limits.tokens)
    if limits.usd is not None:
        shares.append(spent.usd / limits.usd)
    return max(shares, default=None)
