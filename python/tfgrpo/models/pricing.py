"""The cost of a call in US dollars, by configured prices."""

from __future__ import annotations

import msgspec

from tfgrpo.types import Price, Usage

_MILLION = 1_000_000


def cost(usage: Usage, price: Price | None) -> float:
    """US dollars for a usage; 0.0 without prices.

    Args:
        usage: token counts; `cached_tokens` are part of `input_tokens`.
        price: dollars per million tokens; without `cached_input`, cached tokens cost `input`.
    """
    if price is None:
        return 0.0
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input_tokens - usage.cached_tokens
    dollars = fresh * price.input + usage.cached_tokens * cached_price + usage.output_tokens * price.output
    return dollars / _MILLION


def saved_usd(usage: Usage, price: Price | None) -> float:
    """US dollars that cached prompt tokens saved; 0.0 without prices, or without one of their own for them.

    Args:
        usage: token counts; `cached_tokens` are part of `input_tokens`.
        price: dollars per million tokens.
    """
    return cost(msgspec.structs.replace(usage, cached_tokens=0), price) - cost(usage, price)


def priced(usage: Usage, price: Price | None) -> Usage:
    """The same usage with `usd` set by `cost`."""
    return msgspec.structs.replace(usage, usd=cost(usage, price))
