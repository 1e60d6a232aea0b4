"""What calls cost, and what cached tokens saved."""

from __future__ import annotations

import pytest

from tfgrpo.models.pricing import cost, saved_usd
from tfgrpo.types import Price, Usage

USAGE = Usage(calls=1, input_tokens=1_000_000, cached_tokens=750_000, output_tokens=10_000)


def test_saved_is_what_the_same_tokens_would_have_cost_more() -> None:
    price = Price(input=0.56, output=1.68, cached_input=0.07)
    assert saved_usd(USAGE, price) == pytest.approx(0.75 * (0.56 - 0.07))
    uncached = Usage(calls=1, input_tokens=1_000_000, output_tokens=10_000)
    assert cost(USAGE, price) + saved_usd(USAGE, price) == pytest.approx(cost(uncached, price))


@pytest.mark.parametrize("price", [None, Price(input=1.0, output=1.0)])
def test_without_a_price_for_cached_tokens_nothing_is_known_to_be_saved(price: Price | None) -> None:
    assert saved_usd(USAGE, price) == 0.0
