"""Maps as parts of others."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from celosia.graph import Shape

PHASES = 8
"""Most phases that an axis is parted into."""

BORDER = 16
"""Most lines or columns that stand around a map on a side."""


@dataclass(frozen=True)
class Axis:
    """How an axis of a map lies in stored ones.

    size   : of the map.   before, count : elements before what is stored, and how much of it is.
    phases : so many neighbours have one place, in channels of their own.
    first, step : the place in the stored map of the first ones, and from ones to the next.
    low, high : what stands right before what is stored and behind it: which elements of it; else
    there are zeros.
    """

    size: int
    before: int
    count: int
    phases: int = 1
    first: int = 0
    step: int = 1
    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()

    @classmethod
    def of(cls, size: int, phases: int = 1) -> "Axis":
        """Return an axis that is stored as it is, in phases."""
        return cls(size, 0, size, phases)

    @property
    def inner(self) -> "Axis":
        """It without what is around."""
        return replace(self, size=self.count, before=0, low=(), high=())

    def whole(self, stored: int) -> bool:
        """Whether it is a stored axis of that size."""
        return self == Axis.of(stored * self.phases, self.phases)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the place and the phase of each element; -1 of zeros."""
        return self.lies(np.arange(self.size) - self.before)

    def lies(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the place and the phase of elements that are so far behind the first one that is
        stored, int64; -1 of zeros."""
        found = at.copy()
        for begin, beside in ((-len(self.low), self.low), (self.count, self.high)):
            inside = (at >= begin) & (at < begin + len(beside))
            found[inside] = np.array(beside, np.int64)[at[inside] - begin]
        place, phase = np.divmod(found, self.phases)
        zero = (found < 0) | (found >= self.count)
        return np.where(zero, -1, self.first + self.step * place), np.where(zero, -1, phase)


@dataclass(frozen=True, eq=False)
class View:
    """A map whose elements lie in stored ones.

    parts : these, of equal sizes.   table : int64 (C, phases y, phases x), in which channel of all
    parts, one behind the other, an element lies; -1 where it is zero.   axes : y, x.
    shift : int64 (C, 2), how far on the places (y, x) of each channel are; None: of none.
    """

    parts: tuple[str, ...]
    table: np.ndarray
    axes: tuple[Axis, Axis]
    shift: np.ndarray | None = None

    @property
    def phases(self) -> tuple[int, int]:
        return self.axes[0].phases, self.axes[1].phases

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.axes[0].size, self.axes[1].size

    @property
    def shifts(self) -> np.ndarray:
        """Its shift, int64 (C, 2), zeros where it has none."""
        return np.zeros((len(self.table), 2), np.int64) if self.shift is None else self.shift

    @classmethod
    def found(cls, index: np.ndarray, shape: Shape, source: "View") -> "View | None":
        """Return the view of a source's parts that has some of the source's elements, or None.

        index : int64 (C, H, W), which elements; -1 for zeros.   shape : of the source.
        """
        there: np.ndarray = index >= 0
        live = there.reshape(len(index), -1).max(axis=1, initial=False)
        rows, columns = (np.flatnonzero(there.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        if not rows.size:
            return None
        (top, high), (left, wide) = ((int(at[0]), int(at[-1] - at[0]) + 1)
                                     for at in (rows, columns))
        inner = index[:, top:top + high, left:left + wide]
        if (inner[live] < 0).any():
            return None
        channel, at = np.divmod(inner, shape[1] * shape[2])
        y, x = np.divmod(at[live], shape[2])
        shift = np.zeros((len(index), 2), np.int64)
        for axis, places in enumerate((y, x)):
            first = places.min(axis=(1, 2))
            shift[live, axis] = first - first.min()
        y, x = (places - shift[live, axis][:, None, None] for axis, places in enumerate((y, x)))
        lines = _axis(y, inner[live], 1, index.shape[1], top)
        line = _axis(x, inner[live], 2, index.shape[2], left)
        if lines is None or line is None:
            return None
        (f, high), (g, wide) = ((axis.phases, axis.count) for axis in (lines, line))
        y, x = lines.before - top, line.before - left
        planes = channel[:, y:y + high, x:x + wide].reshape(
            len(index), high // f, f, wide // g, g)
        if (planes[live] != planes[live][:, :1, :, :1]).any():
            return None
        table = np.where(live[:, None, None], planes[:, 0, :, 0], -1)
        return cls(source.parts, table, (lines, line),
                   shift if shift.any() else None)._in(source, shape)

    def _in(self, source: "View", shape: Shape) -> "View | None":
        """Return a view of a source as one of the source's parts; None where it is none."""
        stored = source.shift is None and all(
            axis.phases == 1 and axis == Axis.of(axis.size) for axis in source.axes)
        if not stored and (self.shift is not None or source.shift is not None):
            return None
        axes = []
        for own, other, size in zip(self.axes, source.axes, shape[1:], strict=True):
            if stored:
                axes.append(own)
            elif own.whole(size) and not (other.low or other.high):
                axes.append(replace(other, size=own.size, phases=own.phases * other.phases,
                                    before=other.before * own.phases,
                                    count=other.count * own.phases))
            elif own.inner.whole(size) and other == other.inner:
                axes.append(replace(own, phases=own.phases * other.phases, first=other.first,
                                    step=other.step))
            elif own.whole(size) and own.phases == 1:
                axes.append(other)
            else:
                return None
        numbers = [np.arange(axis.phases) for axis in axes]
        (y, x), (f, g) = numbers, self.phases
        channel = self.table[:, y % f][:, :, x % g]
        table = np.concatenate([source.table, np.full_like(source.table[:1], -1)])
        return View(source.parts, table[channel, (y // f)[:, None], x // g],
                    (axes[0], axes[1]), self.shift)

    def elements(self, stored: tuple[int, int]) -> np.ndarray:
        """Return which of the parts' elements each one is, int64 (C, H, W); -1 for zeros.

        stored : height and width of the parts.
        """
        (y, a), (x, b) = (axis.places() for axis in self.axes)
        channel = self.table[:, a][:, :, b]
        zero = (channel < 0) | (y < 0)[:, None] | (x < 0)
        down, right = self.shifts[:, :, None, None].swapaxes(0, 1)
        return np.where(zero, -1, (channel * stored[0] + y[:, None] + down) * stored[1] + x + right)


def _axis(places: np.ndarray, index: np.ndarray, axis: int, size: int, before: int) -> Axis | None:
    """Return how an axis lies in another one; None where it has no order, or channels have others.

    places, index : int64 (C, H, W), in the other, and of elements.   size : of the axis.
    before : zeros before all this.
    """
    first, elements = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
                       for array in (places, index))
    if (first != first[:, :1]).any():
        return None
    at, every = first[:, 0], len(first)
    for low, high in _around(at):
        inner = _even(at[low:every - high], size, before + low)
        if inner is None:
            continue
        found = [_same(elements, number, low, every - high)
                 for number in (*range(low), *range(every - high, every))]
        if None not in found:
            beside = tuple(number for number in found if number is not None)
            return replace(inner, low=beside[:low], high=beside[low:])
    return None


def _around(at: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield how many elements may stand before and behind what places rise in, fewest first."""
    every = len(at)
    falls = np.flatnonzero(np.diff(at) < 0)
    for total in range(every):
        for low in range(max(0, total - BORDER), min(total, BORDER) + 1):
            inside = (falls >= low) & (falls < every - (total - low) - 1)
            if not inside.any():
                yield low, total - low


def _even(at: np.ndarray, size: int, before: int) -> Axis | None:
    """Return the axis that has some places, whose first one is element ``before`` of it."""
    count = len(at)
    for phases in range(1, min(count, PHASES) + 1):
        if count % phases:
            continue
        groups = at.reshape(-1, phases)
        steps = set(np.diff(groups[:, 0]).tolist()) or {1}
        if (groups == groups[:, :1]).all() and len(steps) == 1 and min(steps) > 0:
            return Axis(size, before, count, phases, int(at[0]), steps.pop())
    return None


def _same(elements: np.ndarray, number: int, begin: int, end: int) -> int | None:
    """Return which of the lines or columns from one until another has the elements of one; None
    where none has.   elements : int64 (number, all the others)."""
    alike = np.flatnonzero((elements[begin:end] == elements[number]).all(axis=1))
    return int(alike[0]) if alike.size else None


def seen_as(name: str, channels: int, size: tuple[int, int], phases: tuple[int, int]) -> View:
    """Return the view of a map that is stored in phases, and nothing else with it."""
    table = np.arange(channels * phases[0] * phases[1]).reshape(channels, *phases)
    return View((name,), table, (Axis.of(size[0], phases[0]), Axis.of(size[1], phases[1])))


def common_phases(views: list[View]) -> tuple[int, int]:
    """Return the phases into which those of all views divide."""
    return (math.lcm(*(view.phases[0] for view in views)),
            math.lcm(*(view.phases[1] for view in views)))
