"""Functions of one number as straight pieces, which clamped linear layers compute.

A function that runs straight far out on both sides is its two ends, ``above * max(x, 0) + below *
min(x, 0)``, and a rest that is constant far out; the rest is approximated by straight pieces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["Pieces", "fit"]

PIECES = 12
"""Most pieces of a function: each costs an element of main memory at every place."""

_REACH = 64.0
"""The pieces lie within this of 0; beyond it a function counts as straight."""
_GRID = np.linspace(-_REACH, _REACH, 16 * 1024 + 1)
_BETWEEN = np.linspace(-_REACH, _REACH, 100_003)
_FAR = np.array([256.0, 511.0, 512.0])
_ZERO = len(_GRID) // 2
_USUAL = np.abs(_GRID) <= 4
_POLISH = 60
_NEAR = 0.3 + np.minimum(np.abs(_GRID), 1.0)
"""How far off pieces may be, in shares of the same: where numbers are small, less."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pieces:
    """``f(x) = above * max(x, 0) + below * min(x, 0) + rest(x)``.

    knots, values : float64 (pieces + 1,), rising places and what the rest is there; before the
                    first and behind the last it is constant. One knot: it is constant everywhere.
    """

    knots: np.ndarray
    values: np.ndarray
    below: float
    above: float

    @property
    def nearest(self) -> float:
        """Width of the shorter one of the pieces that end at 0, or of the nearest one: numbers are
        rounded to a share of it, however small they are."""
        at = int(np.abs(self.knots).argmin())
        return float(np.diff(self.knots[max(at - 1, 0):at + 2]).min())

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return f of float64 values of any shape."""
        ends = self.above * np.maximum(x, 0) + self.below * np.minimum(x, 0)
        result: np.ndarray = ends + np.interp(x, self.knots, self.values)
        return result


def fit(function: Callable[[np.ndarray], np.ndarray]) -> tuple[Pieces, float]:
    """Return a function as at most `PIECES` straight pieces, and the most that these are off, as a
    share of its span between -4 and 4.

    function : of float64 (n,), element by element.
    ValueError, which says why, where it is not finite, does not run straight far out, or is off by
    more than a fiftieth, or jumps.
    """
    with np.errstate(all="ignore"):
        y, low, high = function(_GRID), function(-_FAR), function(_FAR)
    if not all(np.isfinite(part).all() for part in (y, low, high)):
        raise ValueError("it is not finite everywhere")
    span = float(np.ptp(y[_USUAL]))
    below, above = _slope(-_FAR, low, span), _slope(_FAR, high, span)
    for slope, x, far in ((below, -_FAR, low), (above, _FAR, high)):
        if abs(far[0] - (far[2] + slope * (x[0] - x[2]))) > span / 100:
            raise ValueError("it does not run straight far from 0")
    ends = Pieces(knots=np.zeros(1), values=np.zeros(1), below=below, above=above)
    rest = y - ends(_GRID)
    for x, far, end in ((-_FAR, low, rest[0]), (_FAR, high, rest[-1])):
        if np.abs(far - ends(x) - end).max() > span / 50:
            raise ValueError(f"it does not run straight farther than {_REACH:g} from 0")
    pieces = _fitted(rest.tobytes(), below, above)
    with np.errstate(all="ignore"):
        off = float(np.abs(pieces(_BETWEEN) - function(_BETWEEN)).max()) / max(span, 1e-9)
    if off > 0.02:
        raise ValueError(f"{PIECES} straight pieces are off by up to {off:.0%} of its span")
    if (jump := _jump(function, y)) > 1e-3 * span:
        raise ValueError(f"it jumps by {jump:.2g}")
    return pieces, off


def _jump(function: Callable[[np.ndarray], np.ndarray], y: np.ndarray) -> float:
    """Return the largest step of a function, whose values on the grid are y, between two numbers
    that are next to each other: it lies where these rise most."""
    at = np.argsort(np.abs(np.diff(y)))[-16:]
    low, high = _GRID[at], _GRID[at + 1]
    for _ in range(40):
        middle = (low + high) / 2
        left, inside, right = (function(x) for x in (low, middle, high))
        below = np.abs(inside - left) > np.abs(right - inside)
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    return float(np.abs(function(high) - function(low)).max())


def _slope(x: np.ndarray, y: np.ndarray, span: float) -> float:
    """Return the slope far out; 0 where it makes next to nothing of the span even there."""
    slope = round(float((y[2] - y[1]) / (x[2] - x[1])), 9)
    return slope if abs(slope * x[2]) > span / 200 else 0.0


@lru_cache(maxsize=64)      # networks have few functions, in many places
def _fitted(given: bytes, below: float, above: float) -> Pieces:
    """Return the pieces of the rest, given by its values on the grid: the least deviation that
    so many can have, by bisection. At 0 they are exact."""
    rest = np.frombuffer(given)
    if np.ptp(rest) < 1e-9:
        return Pieces(knots=np.zeros(1), values=rest[:1], below=below, above=above)
    low, high = 0.0, float(np.ptp(rest))
    while high - low > high / 100:
        middle = (low + high) / 2
        low, high = (low, middle) if len(list(_cut(rest, middle))) <= PIECES + 1 else (middle, high)
    at = np.array(list(_cut(rest, high)))
    knots, values = _GRID[at], rest[at]
    values[[0, -1]] = rest[[0, -1]]
    free = (at != _ZERO) & (at != at[0]) & (at != at[-1])
    for _ in range(_POLISH):    # from chords, off to one side, to what is off half as far to both
        error = (np.interp(_GRID, knots, values) - rest) / _NEAR
        extremes = [(part.max() + part.min()) / 2 for before, behind in zip(
            (0, *at[:-1]), (*at[1:], len(_GRID) - 1), strict=True)
            for part in (error[before:behind + 1],)]
        values[free] -= (np.array(extremes) * _NEAR[at] / 2)[free]
    knots.flags.writeable = values.flags.writeable = False
    return Pieces(knots=knots, values=values, below=below, above=above)


def _cut(rest: np.ndarray, off: float) -> Iterator[int]:
    """Yield where chords begin and end, 0 among them, none of which leaves the rest by more than
    ``off``, and near 0 by less."""
    first = int(np.argmax(np.abs(rest - rest[0]) > off / 2 * _NEAR)) - 1
    last = len(rest) - int(np.argmax((np.abs(rest - rest[-1]) > off / 2 * _NEAR)[::-1]))
    if rest[_ZERO] not in (rest[0], rest[-1]):
        first, last = min(first, _ZERO), max(last, _ZERO)
    at = max(first, 0)
    yield at
    while at < last:
        near, beyond = at + 1, (_ZERO if at < _ZERO < last else last) + 1
        while beyond - near > 1:
            middle = (near + beyond) // 2
            near, beyond = ((middle, beyond) if _chord_off(rest, at, middle) <= off
                            else (near, middle))
        at = near
        yield at


def _chord_off(rest: np.ndarray, first: int, last: int) -> float:
    part = rest[first:last + 1]
    error = np.abs(part - np.linspace(part[0], part[-1], len(part)))
    return float((error / _NEAR[first:last + 1]).max())
