"""Maps as parts of others, and the convolutions that read them so."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from celosia.graph import Conv, Shape
from celosia_spec.qgraph import Border, Edge

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


# Convolutions

@dataclass(frozen=True)
class _Taps:
    """A convolution along one axis of what is stored.

    taps : (phase of the output, kernel position, phase of the input, position of the kernel of what
    is stored, shift of the channels that this is of).   kernel, stride, dilation, padding : of that
    one.   border : what stands before the map and behind it, within the padding.
    """

    taps: list[tuple[int, int, int, int, int]]
    kernel: int
    stride: int
    dilation: int
    padding: tuple[int, int]
    border: tuple[list["_Beside"], list["_Beside"]]


@dataclass(frozen=True)
class _Beside:
    """What stands beside a stored map.   at : which place of it.   phases : (phase that is read
    there, phase of which the elements are)."""

    at: int
    phases: frozenset[tuple[int, int]]

    def edge(self, table: np.ndarray, channels: int) -> Edge | None:
        """Return what stands there of so many channels; None where one is to be two.

        table : int64 (C, phases, others), in which channel elements lie; -1 for zeros.
        """
        found: dict[int, int] = {}
        for own, other in self.phases:
            for here, there in zip(table[:, own].ravel().tolist(), table[:, other].ravel().tolist(),
                                   strict=True):
                if here >= 0 and found.setdefault(here, there) != there:
                    return None
        moved = tuple(found.get(channel, channel) for channel in range(channels))
        return Edge(self.at, () if moved == tuple(range(channels)) else moved)


def expanded(node: Conv, view: View, stored: tuple[int, int], channels: int,
             size: tuple[int, int], phases: tuple[int, int]) -> Conv | None:
    """Return a convolution of a view as one of its parts, which makes its output in phases; None
    where what stands around the view is something else there.

    stored, channels : height and width of the parts, and the channels of all.   size : of the
    output.
    """
    shifts = view.shifts
    found = [_taps(node, view.axes[axis], axis, stored[axis], size[axis], phases[axis],
                   sorted(set(shifts[:, axis].tolist()))) for axis in range(2)]
    lines, columns = found
    if lines is None or columns is None:
        return None
    border = _border(lines, columns, view.table, channels)
    if border is None:
        return None
    rows, (f, g) = len(node.weight), phases
    weight, live = full_weight(node)
    new = np.zeros((rows, f, g, channels, lines.kernel, columns.kernel))
    kept = np.zeros(new.shape, bool)
    for b, k, a, at, down in lines.taps:
        for c, m, d, to, right in columns.taps:
            channel = view.table[:, a, d]
            own = np.flatnonzero((channel >= 0) & (shifts == (down, right)).all(axis=1))
            place = np.s_[:, b, c, :, at, to]
            _scatter(new[place], kept[place], channel[own], weight[:, own, k, m],
                     live[:, own, k, m])
    bias = None if node.bias is None else np.repeat(node.bias, f * g)
    first, *others = view.parts
    return _narrow(replace(
        node, input=first, others=tuple(others), bias=bias, groups=1, up=(1, 1),
        weight=new.reshape(rows * f * g, *new.shape[3:]), live=kept.reshape(-1, *new.shape[3:]),
        stride=(lines.stride, columns.stride), dilation=(lines.dilation, columns.dilation),
        padding=(lines.padding[0], columns.padding[0], lines.padding[1], columns.padding[1]),
        border=border))


def _border(lines: _Taps, columns: _Taps, table: np.ndarray, channels: int) -> Border | None:
    """Return what stands around a stored map of so many channels; None where it cannot be."""
    found: list[tuple[Edge, ...]] = []
    for side in range(2):
        for axis, own in ((lines, table), (columns, table.swapaxes(1, 2))):
            edges = [beside.edge(own, channels) for beside in axis.border[side]]
            if None in edges:
                return None
            found.append(tuple(edge for edge in edges if edge is not None))
    top, left, bottom, right = found
    return top, left, bottom, right


def _scatter(weight: np.ndarray, live: np.ndarray, columns: np.ndarray, values: np.ndarray,
             which: np.ndarray) -> None:
    """Add values (rows, n) to columns of weights, and note which are weights."""
    if len(set(columns.tolist())) == len(columns):
        weight[:, columns] += values
        live[:, columns] |= which
        return
    for column, value, own in zip(columns, values.T, which.T, strict=True):
        weight[:, column] += value
        live[:, column] |= own


def _taps(node: Conv, axis: Axis, number: int, stored: int, size: int, phases: int,
          shifts: list[int]) -> _Taps | None:
    up, stride, apart = node.up[number], node.stride[number], node.dilation[number]
    count = size // phases
    step = axis.step * stride * phases // (up * axis.phases) if count > 1 else 1
    positions = np.arange(count) * step
    found = []
    around = _Around(stored)
    for phase, k, shift in product(range(phases), range(node.kernel[number]), shifts):
        at, between = divmod(stride * phase + apart * k - node.padding[number], up)
        if between:
            continue
        at -= axis.before
        place, own = divmod(at, axis.phases)
        place = axis.first + axis.step * place + shift
        wanted, phases_there = axis.lies(
            np.arange(count) * (stride * phases // up if count > 1 else 1) + at)
        if (wanted < 0).all():
            continue
        if not around.reads(positions + place, own, np.where(wanted < 0, -1, wanted + shift),
                            phases_there):
            return None
        found.append((phase, k, own, place, shift))
    places = [place for *_, place, _ in found] or [0]
    low = min(0, *places)
    # Positions beyond the last one of the output must not fit.
    high = max(*places, low, stored - count * step)
    dilation = math.gcd(*(place - low for place in places)) or max(high - low, 1)
    high += -(high - low) % dilation
    border = around.found()
    if border is None:
        return None
    return _Taps(
        taps=[(phase, k, own, (place - low) // dilation, shift)
              for phase, k, own, place, shift in found],
        kernel=(high - low) // dilation + 1, stride=step, dilation=dilation, border=border,
        padding=(-low - len(border[0]),
                 max(0, (count - 1) * step + high + 1 - stored) - len(border[1])))


class _Around:
    """What taps read of an axis of a stored map, and beside it.

    zeros : places beside it where there is nothing.   places : of others, which place of the map
    stands there.   phases : and (phase that is read there, phase of which the elements are).
    """

    def __init__(self, stored: int) -> None:
        self.stored, self.zeros = stored, set[int]()
        self.places: dict[int, int] = {}
        self.phases: dict[int, set[tuple[int, int]]] = {}

    def reads(self, places: np.ndarray, phase: int, wanted: np.ndarray,
              phases: np.ndarray) -> bool:
        """Take down what a tap of one phase reads, and return whether it can have it.

        places : that it reads, one for each output.   wanted, phases : where what it is to have
        lies; -1 for zeros.
        """
        inside = (places >= 0) & (places < self.stored)
        if ((places != wanted) | (phase != phases))[inside].any():
            return False
        for place, at, own in zip(places[~inside].tolist(), wanted[~inside].tolist(),
                                  phases[~inside].tolist(), strict=True):
            if at < 0:
                self.zeros.add(place)
            elif self.places.setdefault(place, at) != at:
                return False
            else:
                self.phases.setdefault(place, set()).add((phase, own))
        return True

    def found(self) -> tuple[list[_Beside], list[_Beside]] | None:
        """Return what stands before the map and behind it; None where a zero is among it."""
        before = range(min(0, *self.places, 0), 0)
        behind = range(self.stored, max(self.stored - 1, *self.places, self.stored - 1) + 1)
        if self.zeros.intersection((*before, *behind)):
            return None
        low, high = ([_Beside(self.places.get(place, 0), frozenset(self.phases.get(place, ())))
                      for place in side] for side in (before, behind))
        return low, high


def full_weight(node: Conv) -> tuple[np.ndarray, np.ndarray]:
    """Return a convolution's weights for all of its input's channels, and which are weights."""
    rows, own = node.weight.shape[:2]
    weight = np.zeros((rows, own * node.groups, *node.kernel))
    live = np.zeros(weight.shape, bool)
    group = np.arange(rows) // (rows // node.groups)
    channels = group[:, None] * own + np.arange(own)
    weight[np.arange(rows)[:, None], channels] = node.weight
    live[np.arange(rows)[:, None], channels] = True if node.live is None else node.live
    return weight, live


def _narrow(node: Conv) -> Conv:
    """Return a convolution of all channels as a depthwise one where it is that."""
    rows, channels = node.weight.shape[:2]
    assert node.live is not None
    if rows == channels > 1 and not (node.live.any(axis=(2, 3)) & ~np.eye(rows, dtype=bool)).any():
        own = np.arange(rows)
        node = replace(node, weight=node.weight[own, own][:, None].copy(), groups=channels,
                       live=node.live[own, own][:, None].copy())
    return replace(node, live=None) if node.live is not None and node.live.all() else node


def over_elements(node: Conv, index: np.ndarray, parts: Sequence[str], own: Sequence[str],
                  shapes: Mapping[str, Shape], *, first: bool) -> Conv:
    """Return a convolution with one position as one of whole stored maps.

    index : int64 (C, H, W), which element of all parts each one is; -1 for zeros.   own : the parts
    that it reads, of equal sizes.   first : it has the bias.
    """
    top, left = node.padding[:2]
    rows = len(node.weight)
    y, x = (np.arange(kernel) * apart - before for kernel, apart, before in
            zip(node.kernel, node.dilation, (top, left), strict=True))
    inside = ((y >= 0) & (y < index.shape[1]))[:, None] & ((x >= 0) & (x < index.shape[2]))
    found = np.where(inside, index[:, y.clip(0, index.shape[1] - 1)][
        :, :, x.clip(0, index.shape[2] - 1)], -1).ravel()
    numbers, begin, count = np.full(sum(math.prod(shapes[part]) for part in parts) + 1, -1), 0, 0
    for part in parts:
        size = math.prod(shapes[part])
        if part in own:
            numbers[begin:begin + size] = count + np.arange(size)
            count += size
        begin += size
    column = numbers[found]
    kept = np.flatnonzero(column >= 0)
    weight, live = np.zeros((rows, count)), np.zeros((rows, count), bool)
    values = node.weight.reshape(rows, -1)[:, kept]
    _scatter(weight, live, column[kept], values, np.ones(values.shape, bool))
    shape = rows, sum(shapes[part][0] for part in own), *shapes[own[0]][1:]
    return _narrow(replace(
        node, weight=weight.reshape(shape), live=live.reshape(shape), stride=(1, 1),
        dilation=(1, 1), padding=(0, 0, 0, 0), bias=node.bias if first else None))
