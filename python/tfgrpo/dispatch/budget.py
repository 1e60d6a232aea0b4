"""Money and tokens: what is spent, what is in flight, and the hard stop.

A call is launched only if everything spent, the most that the calls in flight may cost, and the most that it may
cost itself fit the budget; that is then settled to the actual usage. Failed attempts that may have been paid count.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from tfgrpo.errors import BudgetError, ConfigError
from tfgrpo.types import Usage

#: The share of a budget that is warned of.
WARN_AT = 0.8


class Budget:
    """The account of a run or an engine, with hard stops; None is no stop of its kind.

    Args:
        usd: US dollars, by the configured prices.
        tokens: tokens in and out together.
        spent: what is spent already: resuming goes on counting.
        warn: told once when `WARN_AT` of the tightest stop is spent.

    Raises:
        ConfigError: a stop is not above 0.
    """

    def __init__(
        self,
        usd: float | None = None,
        tokens: int | None = None,
        *,
        spent: Usage | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        if (usd is not None and not usd > 0) or (tokens is not None and not tokens > 0):
            raise ConfigError(
                f"A budget of usd = {usd}, tokens = {tokens} permits nothing; give more than 0, or None."
            )
        self.usd = usd
        self.tokens = tokens
        self.spent = spent or Usage()
        self.warn = warn
        self._warned = False
        # What is set aside for calls in flight, as plain numbers: this is done for every call.
        self._tokens = math.inf if tokens is None else tokens
        self._usd = math.inf if usd is None else usd
        self._reserved_calls = self._reserved_tokens = 0
        self._reserved_usd = 0.0
        self._settled = anyio.Event()
        self.waiting = 0

    @property
    def share(self) -> float | None:
        """The share of the tightest stop that is spent; None without one."""
        shares = []
        if self.tokens is not None:
            shares.append(self.spent.tokens / self.tokens)
        if self.usd is not None:
            shares.append(self.spent.usd / self.usd)
        return max(shares, default=None)

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
        share = self.share
        if share is not None and share >= WARN_AT:
            self._warned = True
            if self.warn is not None:
                self.warn(f"{share:.0%} of the budget is spent.")

    def _overrun(self, most: Usage) -> str:
        """Which limit a call would pass, said with what is spent so far."""
        if self.tokens is not None and self.spent.tokens + most.tokens > self.tokens:
            return f"{self.spent.tokens:,} of {self.tokens:,} tokens"
        return f"${self.spent.usd:.4f} of ${self._usd:.2f}"
