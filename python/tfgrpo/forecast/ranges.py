"""A quantity in three courses: the least, the likely and the most."""

from __future__ import annotations

import math

import msgspec

#: How far a measured mean may be off, as factors.
BELOW, ABOVE = 0.8, 1.25


class Range(msgspec.Struct, frozen=True):
    """A quantity as the least, the likely and the most."""

    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __sub__(self, other: Range) -> Range:
        return Range(self.low - other.low, self.middle - other.middle, self.high - other.high)

    def __mul__(self, other: Range | float) -> Range:
        by = other if isinstance(other, Range) else Range(other, other, other)
        return Range(self.low * by.low, self.middle * by.middle, self.high * by.high)

    def whole(self) -> Range:
        """The same in whole numbers: the least rounded down, the most rounded up."""
        return Range(math.floor(self.low), round(self.middle), math.ceil(self.high))

    def most(self, bound: float) -> Range:
        """The same, nothing above a bound."""
        return Range(min(self.low, bound), min(self.middle, bound), min(self.high, bound))

    def least(self, bound: float) -> Range:
        """The same, nothing below a bound."""
        return Range(max(self.low, bound), max(self.middle, bound), max(self.high, bound))


def flat(value: float) -> Range:
    """A quantity that is known."""
    return Range(value, value, value)


def around(mean: float) -> Range:
    """A quantity whose mean was measured."""
    return Range(mean * BELOW, mean, mean * ABOVE)
