"""Maps as parts of others, and the convolutions that read them so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from celosia.graph import Conv, Shape

PHASES = 8
"""Most phases that an axis is parted into."""


@dataclass(frozen=True)
class Axis:
    """How an axis of a map lies in stored ones.

    size   : of the map.   before, count : zeros before what is stored, and how much of it is.
    phases : so many neighbours have one place, in channels of their own.
    first, step : the place in the stored map of the first ones, and from ones to the next.
    """

    size: int
    before: int
    count: int
    phases: int = 1
    first: int = 0
    step: int = 1

    @classmethod
    def of(cls, size: int, phases: int = 1) -> "Axis":
        """Return an axis that is stored as it is, in phases."""
        return cls(size, 0, size, phases)

    @property
    def inner(self) -> "Axis":
        """It without the zeros around."""
        return replace(self, size=self.count, before=0)

    def whole(self, stored: int) -> bool:
        """Whether it is a stored axis of that size."""
        return self == Axis.of(stored * self.phases, self.phases)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the place and the phase of each element; -1 of zeros."""
        at = np.arange(self.size) - self.before
        place, phase = np.divmod(at, self.phases)
        zero = (at < 0) | (at >= self.count)
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
        lines, line = _axis(y, 1, index.shape[1], top), _axis(x, 2, index.shape[2], left)
        if lines is None or line is None:
            return None
        f, g = lines.phases, line.phases
        planes = channel.reshape(len(index), high // f, f, wide // g, g)
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
            elif own.whole(size):
                axes.append(replace(other, size=own.size, phases=own.phases * other.phases,
                                    before=other.before * own.phases,
                                    count=other.count * own.phases))
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


def _axis(places: np.ndarray, axis: int, size: int, before: int) -> Axis | None:
    """Return how an axis lies in another whose places, int64 (C, H, W), are given; None where it
    has no order, or channels have others."""
    first = np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1)
    if (first != first[:, :1]).any():
        return None
    at, count = first[:, 0], len(first)
    for phases in range(1, min(count, PHASES) + 1):
        if count % phases:
            continue
        groups = at.reshape(-1, phases)
        steps = set(np.diff(groups[:, 0]).tolist()) or {1}
        if (groups == groups[:, :1]).all() and len(steps) == 1 and min(steps) > 0:
            return Axis(size, before, count, phases, int(at[0]), steps.pop())
    return None


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
    one.
    """

    taps: list[tuple[int, int, int, int, int]]
    kernel: int
    stride: int
    dilation: int
    padding: tuple[int, int]


def expanded(node: Conv, view: View, stored: tuple[int, int], channels: int,
             size: tuple[int, int], phases: tuple[int, int]) -> Conv | None:
    """Return a convolution of a view as one of its parts, which makes its output in phases; None
    where a zero of the view's is something else there.

    stored, channels : height and width of the parts, and the channels of all.   size : of the
    output.
    """
    shifts = view.shifts
    found = [_taps(node, view.axes[axis], axis, stored[axis], size[axis], phases[axis],
                   sorted(set(shifts[:, axis].tolist()))) for axis in range(2)]
    lines, columns = found
    if lines is None or columns is None:
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
        padding=(lines.padding[0], columns.padding[0], lines.padding[1], columns.padding[1])))


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
    for phase, k, shift in product(range(phases), range(node.kernel[number]), shifts):
        at, between = divmod(stride * phase + apart * k - node.padding[number], up)
        if between:
            continue
        at -= axis.before
        place, own = divmod(at, axis.phases)
        place = axis.first + axis.step * place + shift
        inside = np.arange(count) * (stride * phases // up if count > 1 else 1) + at
        there = (inside >= 0) & (inside < axis.count)
        if not there.any():
            continue
        if ((positions + place >= 0) & (positions + place < stored) != there).any():
            return None
        found.append((phase, k, own, place, shift))
    places = [place for *_, place, _ in found] or [0]
    low = min(0, *places)
    # Positions beyond the last one of the output must not fit.
    high = max(*places, low, stored - count * step)
    dilation = math.gcd(*(place - low for place in places)) or max(high - low, 1)
    high += -(high - low) % dilation
    return _Taps(
        taps=[(phase, k, own, (place - low) // dilation, shift)
              for phase, k, own, place, shift in found],
        kernel=(high - low) // dilation + 1, stride=step, dilation=dilation,
        padding=(-low, max(0, (count - 1) * step + high + 1 - stored)))


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
