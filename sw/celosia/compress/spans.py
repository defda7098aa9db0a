"""Where numbers must lie: for the command line before torch is loaded, for the methods later."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

from celosia_spec.errors import ArgumentError

__all__ = ["COUNT", "INSIDE", "NOT_NEGATIVE", "POSITIVE", "SHARE", "UNIT", "Span"]


class Span(NamedTuple):
    """Finite numbers in a range.   said : the range in words.   open_low, open_high : whether an
    end is outside."""

    said: str
    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def check(self, what: str, value: object) -> None:
        """ArgumentError, which calls the value ``what``, unless it is a number of the range."""
        if isinstance(value, Real) and not isinstance(value, bool):
            number = float(value)
            above = self.low < number if self.open_low else self.low <= number
            below = number < self.high if self.open_high else number <= self.high
            if above and below and math.isfinite(number):
                return
        raise ArgumentError(f"{what} must be {self.said}, not {value!r}")


SHARE = Span("at least 0 and below 1", 0, 1, open_high=True)
INSIDE = Span("above 0 and below 1", 0, 1, open_low=True, open_high=True)
UNIT = Span("0 to 1", 0, 1)
POSITIVE = Span("above 0", 0, open_low=True)
NOT_NEGATIVE = Span("at least 0", 0)
COUNT = Span("at least 1", 1)
