"""Convolutions that read maps as parts of others, as those of what is stored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from celosia.graph import Conv, Shape
from celosia.passes.views import Axis, View
from celosia_spec.qgraph import Border, Edge


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
        """Return what stands there of so many channels; None where one is to be two, or one of
        channel and zero stands in place of the other.

        table : int64 (C, phases, others), in which channel elements lie; -1 for zeros.
        """
        found: dict[int, int] = {}
        for own, other in self.phases:
            for here, there in zip(table[:, own].ravel().tolist(), table[:, other].ravel().tolist(),
                                   strict=True):
                if (here < 0) != (there < 0) or found.setdefault(here, there) != there:
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
    which = (np.ones(values.shape, bool) if node.live is None else
             node.live.reshape(rows, -1)[:, kept])
    _scatter(weight, live, column[kept], values, which)
    shape = rows, sum(shapes[part][0] for part in own), *shapes[own[0]][1:]
    return _narrow(replace(
        node, weight=weight.reshape(shape), live=live.reshape(shape), stride=(1, 1),
        dilation=(1, 1), padding=(0, 0, 0, 0), bias=node.bias if first else None))
