"""Max pools whose windows are not next to each other, or of several sizes: pools of parts of a map,
whose results are put between each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from celosia.frontend.call import Call, map_shape
from celosia.graph import Add, AvgPool, MaxPool, Move, Node
from celosia_spec.epilogue import Pool

MOST = 16
"""Most pools whose results are put between each other."""

MOST_PADDED = 4
"""Most pools whose mean counts elements of the map alone."""


@dataclass(frozen=True)
class Windows:
    """Every so-manieth output of an axis, all of one size and equally far apart.

    first : the element at which the first window begins, maybe before the map.   apart : from one
    element of a window to the next.   size : of a window.   step : from one window to the next, in
    elements that are ``apart``.   count : of windows.
    """

    first: int
    apart: int
    size: int
    step: int
    count: int

    def elements(self, before: int) -> range:
        """Return which elements of an axis of so many lie in windows, or between these."""
        whole = range(self.first, self.first + self.apart * (
            (self.count - 1) * self.step + self.size), self.apart)
        return range(self.first + self.apart * self._low, min(whole.stop, before), self.apart)

    def beyond(self, before: int) -> bool:
        """Whether a window has no element of an axis of so many."""
        starts = (self.first + self.apart * self.step * number for number in range(self.count))
        return any(not any(0 <= start + self.apart * own < before for own in range(self.size))
                   for start in starts)

    def padding(self, before: int) -> tuple[int, int]:
        """Return how many elements windows look at before an axis of so many, and behind it."""
        every = (self.count - 1) * self.step + self.size
        return self._low, every - self._low - len(self.elements(before))

    @property
    def _low(self) -> int:
        return max(0, -(self.first // self.apart))


def dilated(first: int, apart: int, size: int, step: int, count: int) -> list[Windows]:
    """Return the windows of an axis whose elements are apart, as those of every so-manieth output.

    first : where the first one begins.   step : from one to the next, in elements of the map.
    """
    every = apart // math.gcd(apart, step)
    return [Windows(first + step * number, apart, size, step * every // apart,
                    len(range(number, count, every))) for number in range(min(every, count))]


def within(call: Call) -> list[Node] | None:
    """Return an average pool that counts elements of the map alone, as the mean of some that are
    padded: in place of what lies beyond the map each has another one of the elements that the
    window has. None where these would be more than `MOST_PADDED`, or two windows look beyond the
    map on the same side."""
    source, window = call.value("self"), call.pair("kernel_size")
    stride, shape = call.pair("stride", window), map_shape(source.shape)
    axes = [_padded(*own) for own in zip(shape[1:], map_shape(call.shape)[1:], window, stride,
                                         call.pair("padding"), strict=True)]
    ways = list(product(*(own or [] for own in axes)))
    if not 0 < len(ways) <= MOST_PADDED:
        return None
    elements = np.arange(math.prod(shape)).reshape(shape)
    nodes: list[Node] = []
    whole = ""
    for number, (lines, columns) in enumerate(ways):
        last = number == len(ways) - 1
        index = elements[:, lines][:, :, columns]
        padded, pool, total = (call.part(f"{part}.{number}") for part in
                               ("padded", "pool", "sum"))
        pool = call.name if len(ways) == 1 else pool
        total = call.name if last else total
        nodes += [Move(name=padded, inputs=(source.name,), index=index, operator=call.operator,
                       remedy="use padding=0 or count_include_pad=True"),
                  AvgPool(name=pool, input=padded, window=window, stride=stride,
                          divisor=math.prod(window) * len(ways))]
        if number:
            nodes.append(Add(name=total, left=whole, right=pool))
        whole = total if number else pool
    return nodes


def _padded(size: int, count: int, wide: int, step: int, before: int) -> list[list[int]] | None:
    """Return the elements of an axis with what stands around it, for each pool of `within`."""
    behind = (count - 1) * step + wide - before - size
    first, final = wide - before, wide - behind
    if before == 0 and behind <= 0:
        return [list(range(size))]
    if count == 1 or before > step or behind > step or first > size or final > size:
        return None
    low, high = first if before else 1, final if behind > 0 else 1
    return [[number % low] * before + list(range(size))
            + [size - 1 - number % high] * max(behind, 0) for number in range(math.lcm(low, high))]


def pooled(call: Call, axes: tuple[Sequence[Windows], Sequence[Windows]], remedy: str
           ) -> list[Node]:
    """Return the pools over all windows along both axes, and what moves elements around them."""
    source = call.value("self")
    whole, (channels, *sizes) = map_shape(call.shape), map_shape(source.shape)
    if len(axes[0]) * len(axes[1]) > MOST:
        raise call.refuse(f"its windows would be those of more than {MOST} pools", remedy)
    if any(windows.beyond(size) for own, size in zip(axes, sizes, strict=True) for windows in own):
        raise call.refuse("a window lies beyond the map, and the largest of nothing is no number",
                          "use less padding, or ceil_mode=False")
    elements = np.arange(channels * math.prod(sizes)).reshape(channels, *sizes)
    nodes: list[Node] = []
    result = np.empty(whole, np.int64)
    first = 0
    for (y, lines), (x, columns) in product(*map(enumerate, axes)):
        index = elements[:, lines.elements(sizes[0])][:, :, columns.elements(sizes[1])]
        name, only = source.name, len(axes[0]) * len(axes[1]) == 1
        if index.size < elements.size:
            name = call.part("part")
            name += f".{len(nodes)}" if nodes else ""
            nodes.append(Move(name=name, inputs=(source.name,), index=index, remedy=remedy,
                              operator=call.operator))
        pool = call.name if only else f"{call.part('pool')}.{len(nodes)}"
        (top, bottom), (left, right) = lines.padding(sizes[0]), columns.padding(sizes[1])
        nodes.append(MaxPool(name=pool, input=name, padding=(top, left, bottom, right), pool=Pool(
            window=(lines.size, columns.size), stride=(lines.step, columns.step))))
        count = channels * lines.count * columns.count
        result[:, y::len(axes[0]), x::len(axes[1])] = first + np.arange(count).reshape(
            channels, lines.count, columns.count)
        first += count
    if len(axes[0]) * len(axes[1]) > 1:
        nodes.append(Move(
            name=call.name, inputs=tuple(node.name for node in nodes if isinstance(node, MaxPool)),
            index=result, operator=call.operator, remedy=remedy))
    return nodes
