"""The numbers that a tensor of a quantised network may have: evenly spaced, around a zero point."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_BITS = 32
"""Of the whole numbers that stand for a tensor's values."""

ROUNDINGS: dict[str, Callable[..., Any]] = {
    "ROUND": np.round, "CEIL": np.ceil, "FLOOR": np.floor, "ROUND_TO_ZERO": np.trunc}
"""To whole numbers, as QONNX calls them; "ROUND" is to the nearest, of two to the even one."""


def whole(ratio: np.ndarray, zero: np.ndarray, ends: tuple[int, int],
          rounding: str = "ROUND") -> np.ndarray:
    """Return the whole numbers that stand for values, of the ratios of these to their scales."""
    found: np.ndarray = ROUNDINGS[rounding](ratio + zero).clip(*ends)
    return found


def real(m: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return the values that whole numbers stand for, float32; all broadcast."""
    with np.errstate(over="ignore"):
        values: np.ndarray = ((m.astype(np.float64) - zero) * scale).astype(np.float32)
    return values


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """The numbers ``(m - zero) * scale``, m whole, ``least`` to ``most``.

    scale, zero : float64 (1,), or (C,) of every channel.

    ValueError, which says what is wrong, where they cannot be.
    """

    scale: np.ndarray
    zero: np.ndarray
    least: int
    most: int

    def __post_init__(self) -> None:
        largest = 1 << MOST_BITS
        if not -largest < self.least < self.most < largest:
            raise ValueError(f"its whole numbers are {self.least} to {self.most}")
        if self.scale.size != self.zero.size and 1 not in (self.scale.size, self.zero.size):
            raise ValueError(f"it has {self.scale.size} scales and {self.zero.size} zero points")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("a scale is not above 0, or not finite")
        inside = (self.zero >= self.least) & (self.zero <= self.most)
        if not (inside & (self.zero == np.round(self.zero))).all():
            raise ValueError(f"a zero point is none of {self.least} to {self.most}")

    def same(self, other: "Grid") -> bool:
        """Whether another has the same numbers for the same whole ones."""
        return ((self.least, self.most) == (other.least, other.most)
                and self.scale.tolist() == other.scale.tolist()
                and self.zero.tolist() == other.zero.tolist())

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest of the numbers, of all channels."""
        return (float(((self.least - self.zero) * self.scale).min()),
                float(((self.most - self.zero) * self.scale).max()))

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Return the nearest of the numbers to values (C, H, W), float64."""
        scale, zero = self.scale[:, None, None], self.zero[:, None, None]
        m = whole(x / scale, zero, (self.least, self.most))
        values: np.ndarray = (m - zero) * scale
        return values
