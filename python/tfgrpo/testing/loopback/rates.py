"""Rate limits of the server: token buckets, and the headers that tell of them exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

#: When the server's clock reads zero, for the headers that name a moment and for `Date`.
EPOCH = datetime(2023, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class RatePlan:
    """The limits of a provider, as buckets that refill steadily.

    Args:
        requests: requests a minute; None sets no limit.
        tokens: tokens a minute, of prompt and answer together; None sets no limit.
        burst: the part of a minute's permission that a bucket holds.
        headers: the names the limits are told by: OpenAI's, Anthropic's, those of the IETF draft, or "none",
            which hides them.
        retry_after: whether a 429 says how long to wait.
    """

    requests: float | None = None
    tokens: float | None = None
    burst: float = 1.0
    headers: Literal["openai", "anthropic", "draft", "none"] = "openai"
    retry_after: bool = True


class Rates:
    """The buckets of a plan, at a time that is given."""

    def __init__(self, plan: RatePlan) -> None:
        self.plan = plan
        limits = {"requests": plan.requests, "tokens": plan.tokens}
        self._buckets = {
            unit: _Bucket(limit, limit * plan.burst) for unit, limit in limits.items() if limit is not None
        }

    def take(self, tokens: float, now: float) -> float | None:
        """Let a call through, or say in how many seconds it could be: then nothing is taken."""
        wanted = {"requests": 1.0, "tokens": tokens}
        wait = max((bucket.wait(wanted[unit], now) for unit, bucket in self._buckets.items()), default=0.0)
        if wait > 0:
            return wait
        for unit, bucket in self._buckets.items():
            bucket.take(wanted[unit])
        return None

    def headers(self, now: float) -> dict[str, str]:
        """The headers by which a response at this time tells of the buckets, with the `Date` it is measured from."""
        moment = EPOCH + timedelta(seconds=now)
        headers = {"Date": moment.strftime("%a, %d %b %Y %H:%M:%S GMT")}
        for unit, bucket in self._buckets.items():
            left, full = max(0, math.floor(bucket.left(now))), bucket.wait(bucket.size, now)
            headers.update(self._told(unit, f"{bucket.limit:g}", str(left), full, moment))
        if self.plan.headers == "draft" and self._buckets:
            for name in ("RateLimit", "RateLimit-Policy"):
                headers[name] = ", ".join(headers.pop(f"{name} {unit}") for unit in self._buckets)
        return headers

    def _told(
        self, unit: str, limit: str, left: str, full: float, moment: datetime
    ) -> Iterator[tuple[str, str]]:
        match self.plan.headers:
            case "openai":
                yield f"x-ratelimit-limit-{unit}", limit
                yield f"x-ratelimit-remaining-{unit}", left
                yield f"x-ratelimit-reset-{unit}", f"{math.ceil(full * 1000)}ms"
            case "anthropic":
                reset = moment.replace(microsecond=0) + timedelta(seconds=math.ceil(full))
                yield f"anthropic-ratelimit-{unit}-limit", limit
                yield f"anthropic-ratelimit-{unit}-remaining", left
                yield f"anthropic-ratelimit-{unit}-reset", reset.isoformat().replace("+00:00", "Z")
            case "draft":
                yield f"RateLimit {unit}", f'"{unit}";r={left};t={math.ceil(full)}'
                quota = ';qu="tokens"' if unit == "tokens" else ""
                yield f"RateLimit-Policy {unit}", f'"{unit}";q={limit};w=60{quota}'
            case "none":
                return


class _Bucket:
    """So much a minute, refilled steadily up to a size; full at first."""

    def __init__(self, limit: float, size: float) -> None:
        self.limit = limit
        self.size = size
        self._left = size
        self._at: float | None = None

    def left(self, now: float) -> float:
        """The content of the bucket."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._left, self._at = min(self.size, self._left + passed * self.limit / 60), now
        return self._left

    def wait(self, amount: float, now: float) -> float:
        """Seconds until an amount is there; one that never fits waits for a full bucket."""
        missing = min(amount, self.size) - self.left(now)
        return max(0.0, missing / self.limit * 60) if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        """Take it out; an amount that never fits leaves a debt."""
        self._left -= amount
