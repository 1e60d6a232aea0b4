"""One provider's model as a run sees it: its admission, its retries, its breaker, and what its calls cost."""

from __future__ import annotations

import msgspec

from tfgrpo.dispatch.admission import Admission, Lease
from tfgrpo.dispatch.retry import EARNED_PAID, EARNED_RETRIES, FIRST_PAID, FIRST_RETRIES, Allowance, Breaker
from tfgrpo.errors import ModelError, ModelTimeoutError, OverloadedError, RateLimitedError
from tfgrpo.models.pricing import cost
from tfgrpo.protocols import Model
from tfgrpo.types import ModelReply, ModelRequest, Price, Role, Usage

#: Output tokens assumed for a call before any call of its role has told better.
FIRST_OUTPUT_GUESS = 256


class Provider:
    """Where the calls of some roles go.

    Args:
        model: answers them.
        admission: lets them go.
        price: of its calls; None counts them as free.
    """

    def __init__(self, model: Model, admission: Admission, price: Price | None = None) -> None:
        self.model = model
        self.admission = admission
        self.breaker = Breaker()
        self.retries = Allowance(FIRST_RETRIES, EARNED_RETRIES)
        self.paid_retries = Allowance(FIRST_PAID, EARNED_PAID)
        self.worked = False
        self._in_flight = 0
        self._price = price
        self._output_mean: dict[Role, float] = {}

    # --- what a call costs -------------------------------------------------------------------------------

    def expected(self, role: Role, request: ModelRequest) -> Usage:
        """What a call will probably cost: prompt length over four, the mean output of its role so far, n times."""
        characters = sum(len(message.content) for message in request.messages)
        output = self._output_mean.get(role)
        if output is None:
            output = request.max_tokens or FIRST_OUTPUT_GUESS
        return self._priced(Usage(1, characters // 4 + 1, 0, round(request.n * output)))

    def most(self, expected: Usage, request: ModelRequest) -> Usage:
        """What a call may cost at most, as far as it has a bound: no prompt token cached, every answer cut off."""
        if request.max_tokens is None or request.n * request.max_tokens <= expected.output_tokens:
            return expected
        return self._priced(Usage(1, expected.input_tokens, 0, request.n * request.max_tokens))

    def _priced(self, usage: Usage) -> Usage:
        if self._price is None:
            return usage
        return msgspec.structs.replace(usage, usd=cost(usage, self._price))

    # --- how a call went ---------------------------------------------------------------------------------

    def entered(self) -> None:
        """A call holds a slot."""
        self._in_flight += 1

    def left(self) -> None:
        """A call is over."""
        self._in_flight -= 1
        self.check_idle()

    def check_idle(self) -> None:
        """With nothing under way no success can earn a retry: then one goes without."""
        if self._in_flight == 0 and not self.admission.waiting:
            self.retries.idle()
            self.paid_retries.idle()

    def answered(self, role: Role, request: ModelRequest, reply: ModelReply) -> None:
        """A call was answered."""
        self.worked = True
        self.breaker.succeeded(self.admission.now())
        self.retries.earn()
        self.paid_retries.earn()
        each = reply.usage.output_tokens / request.n
        mean = self._output_mean.get(role, each)
        self._output_mean[role] = mean + 0.1 * (each - mean)

    @staticmethod
    def ended(lease: Lease, error: ModelError) -> None:
        """An attempt failed: give its lease back as what it was."""
        match error:
            case RateLimitedError():
                lease.rate_limited(error.retry_after)
            case OverloadedError():
                lease.overloaded(error.retry_after)
            case ModelTimeoutError():
                lease.timed_out()
            case _ if error.maybe_paid:
                lease.done(None)
            case _:
                lease.failed()
