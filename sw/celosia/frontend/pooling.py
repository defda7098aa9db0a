"""Max pools whose windows are not next to each other, or of several sizes: pools of parts of a map,
whose results are put between each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from celosia.frontend.call import Call, map_shape
from celosia.graph import MaxPool, Move, Node
from celosia_spec.epilogue import Pool

MOST = 16
"""Most pools whose results are put between each other."""


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


def pooled(call: Call, axes: tuple[Sequence[Windows], Sequence[Windows]], remedy: str
           ) -> list[Node]:
    """Return the pools over all windows along both axes, and what moves elements around them."""
    source = call.value("self")
    whole, (channels, *sizes) = map_shape(call.shape), map_shape(source.shape)
    if len(axes[0]) * len(axes[1]) > MOST:
        raise call.refuse(f"its windows would be those of more than {MOST} pools", remedy)
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
