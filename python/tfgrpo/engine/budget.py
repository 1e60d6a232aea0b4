"""Money and tokens: what is spent, what is in flight, and the hard stop.

A call is launched only if everything spent, everything reserved by calls in flight and its own estimate fit
the budget; its estimate is then settled to the actual usage. Failed attempts that may have been paid count.
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

    async def reserve(self, estimate: Usage) -> None:
        """Set an estimate aside; waits while only calls in flight stand between it and the budget.

        Raises:
            BudgetError: the call does not fit even when nothing else is in flight.

        Cancellation: nothing stays reserved.
        """
        while (over := self._overrun(self.spent + self._reserved + estimate)) is not None:
            if self._reserved.calls == 0:
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
        self._reserved = self._reserved + estimate

    def settle(self, estimate: Usage, actual: Usage) -> None:
        """Replace a reservation by what the call really cost."""
        self._reserved = self._reserved + _negative(estimate)
        self.spent = self.spent + actual
        self._settled.set()
        self._settled = anyio.Event()
        share = self._share()
        if share >= 0.8 and not self._warned:
            self._warned = True
            self._warn(f"{share:.0%} of the budget is spent.")

    def _overrun(self, usage: Usage) -> str | None:
        """Which limit this usage would pass, said with what is spent so far."""
        if self.limits.tokens is not None and usage.tokens > self.limits.tokens:
            return f"{self.spent.tokens:,} of {self.limits.tokens:,} tokens"
        if self.limits.usd is not None and usage.usd > self.limits.usd:
            return f"${self.spent.usd:.4f} of ${self.limits.usd:.2f}"
        return None

    def _share(self) -> float:
        shares = [0.0]
        if self.limits.tokens is not None:
            shares.append(self.spent.tokens / self.limits.tokens)
        if self.limits.usd is not None:
            shares.append(self.spent.usd / self.limits.usd)
        return max(shares)


def _negative(usage: Usage) -> Usage:
    return Usage(-usage.calls, -usage.input_tokens, -usage.cached_tokens, -usage.output_tokens, -usage.usd)
