"""Where a layer's outputs look: offsets of its taps on the grid of its output positions.

A layer's total stride S (convolution times pooling) parts its input map into S planes along either
axis. On such a plane neighbouring output positions are neighbouring places, so a tap is a plane and
a shift on it: ``input = S * (output + shift) + plane``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from celosia_spec.qgraph import Edge, QNode, QTensor

FIRST, LAST = 1, 2
"""Masks that hide the first column of a line, or the last one."""

NONE = 3
"""In place of a mask, where there is none that hides what must be hidden."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a layer.

    size : elements of the input, with what stands beside it.
    count : output positions, behind pooling.   step : S; 1 where there is one position.
    offsets : ``[window position][kernel position]``, of the input element that output position 0
    looks at.
    every : only every so manyth position is an output.   whole : all planes are stored.
    around : lines of the ring that is stored as it lies, behind whose last line its first one comes
    again; 0 where the input is stored from its first line on.
    low, high : what stands before and behind the map.
    """

    size: int
    count: int
    step: int
    offsets: tuple[tuple[int, ...], ...]
    every: int = 1
    whole: bool = False
    around: int = 0
    low: tuple[Edge, ...] = ()
    high: tuple[Edge, ...] = ()

    @classmethod
    def of(cls, node: QNode, source: QTensor, result: QTensor, axis: int, *, dense: bool = False,
           whole: bool = False, around: int = 0) -> "Axis":
        """Return axis 0 (lines) or 1 (columns) of a node. With ``dense`` every element of the input
        is a position, and the map is not parted."""
        geometry, pool = node.geometry, node.epilogue.pool
        stride, apart = geometry.stride[axis], geometry.dilation[axis]
        window = pool.window[axis] if pool else 1
        offsets = tuple(tuple(stride * w + apart * k - geometry.padding[axis]
                              for k in range(geometry.kernel[axis])) for w in range(window))
        count = result.shape[1 + axis]
        step = stride * (pool.stride[axis] if pool else 1) if count > 1 else 1
        every = step if dense else 1
        return cls(size=around or source.shape[1 + axis], count=(count - 1) * every + 1,
                   step=step // every, offsets=offsets, every=every, whole=whole, around=around,
                   low=geometry.border[axis], high=geometry.border[axis + 2])

    @property
    def stored(self) -> int:
        """Elements of the map."""
        return self.size - len(self.low) - len(self.high)

    def runs(self, numbers: range) -> Iterator[tuple[int, int, Edge]]:
        """Yield pieces of numbered elements as they lie in the map: how many are before a piece,
        how many it has, and the first one. What stands beside the map has one each."""
        before, count = len(self.low), len(numbers)
        begin, end = (min(max(-(-(at - numbers.start) // numbers.step), 0), count)
                      for at in (before, before + self.stored))
        yield from ((at, 1, self.low[numbers[at]]) for at in range(begin))
        if begin < end:
            yield begin, end - begin, Edge(numbers[begin] - before)
        yield from ((at, 1, self.high[numbers[at] - before - self.stored])
                    for at in range(end, count))

    @cached_property
    def planes(self) -> tuple[int, ...]:
        """The planes that are stored: the one that taps read, or all."""
        found = {offset % self.step for offsets in self.offsets for offset in offsets}
        return tuple(range(self.step)) if self.whole or len(found) > 1 else tuple(found)

    @cached_property
    def shifts(self) -> tuple[int, int]:
        """The least and the largest shift."""
        if self.around:
            return 0, self.around - 1
        found = [offset // self.step for offsets in self.offsets for offset in offsets]
        return min(found), max(found)

    def length(self, plane: int) -> int:
        """Return the input elements that lie on a plane."""
        return -(-(self.size - plane) // self.step)

    @cached_property
    def longest(self) -> int:
        """The most elements that a plane holds."""
        return max(self.length(plane) for plane in self.planes)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Both axes of a layer, and how far apart lines are.

    pitch  : positions from one line to the next.
    filled : what reads beyond a line finds zeros there, which are stored; else masks hide it.
    fill   : elements of a word that are filled into the banks at once.
    """

    lines: Axis
    columns: Axis
    pitch: int
    filled: bool = False
    fill: int

    @classmethod
    def of(cls, node: QNode, source: QTensor, result: QTensor, *, fill: int, multiple: int = 1,
           filled: bool = False, dense: bool = False, whole: bool = False,
           around: int = 0) -> "Grid":
        """Return the grid of a node with lines that begin on multiples of ``multiple``; ``whole``:
        all planes of columns are stored.   around : as of `Axis`, of one line of results."""
        lines, columns = (Axis.of(node, source, result, axis, dense=dense,
                                  whole=whole and axis == 1, around=(1 - axis) * around)
                          for axis in range(2))
        before, beyond = max(0, -columns.shifts[0]), max(0, columns.shifts[1])
        wide = max(columns.count + beyond * filled, columns.longest + before * filled)
        return cls(lines=lines, columns=columns, pitch=-(-wide // multiple) * multiple,
                   filled=filled, fill=fill)

    @cached_property
    def before(self) -> int:
        """Positions with zeros before the first line of a plane."""
        return max(0, -self.columns.shifts[0]) if self.filled else 0

    @cached_property
    def single(self) -> bool:
        """Whether one plane alone is stored: then lines can follow each other without an end."""
        return len(self.lines.planes) == len(self.columns.planes) == 1

    def plane_x(self, span: int, plane: int) -> int:
        """Return positions from a plane of columns to the next, each of ``span`` lines, on a plane
        of lines.

        With a step of 2, the elements that are filled in a cycle, half of them on either plane, go
        to different banks. Where a map's lines are odd in length, odd ones begin with an odd
        element; so do all where an odd number of columns stands before it.
        """
        size = self.before + span * self.pitch
        if self.columns.step != 2:
            return size
        width, begin = self.columns.stored, len(self.columns.low)
        alike = not (self.lines.step % 2 and width % 2)
        odd = alike and ((plane - len(self.lines.low)) * width - begin) % 2
        return size + (self.fill // 2 + bool(odd) - size) % self.fill

    def plane_y(self, span: int) -> int:
        """Return positions from a plane of lines to the next."""
        return max(self.plane_x(span, plane) for plane in self.lines.planes) * len(
            self.columns.planes)

    def positions(self, span: int) -> int:
        """Return positions that ``span`` lines of all planes take."""
        return self.plane_y(span) * len(self.lines.planes)

    def span(self, count: int) -> int:
        """Return the lines of a plane that ``count`` lines of the output read."""
        least, most = self.lines.shifts
        return count + most - least

    def mask(self, plane: int, shift: int) -> int:
        """Return the mask of a tap: which columns of the output would read beyond a line."""
        if self.filled:
            return 0
        beyond = self.columns.count + shift - self.columns.length(plane)
        if shift < 0:
            return NONE if beyond > 0 or shift < -self.columns.every else FIRST
        if beyond <= 0:
            return 0
        return LAST if beyond <= self.columns.every else NONE

    def taps(self, span: int, turn: int = 0) -> Iterator[list[tuple[int, int]]]:
        """Yield (position, mask) of the taps of each phase, relative to an output position of a
        band of ``span`` lines, kernel positions in their order.   turn : line of a ring at which
        the input begins."""
        for window_y in self.lines.offsets:
            for window_x in self.columns.offsets:
                yield [self._tap(y, x, span, turn) for y in window_y for x in window_x]

    def _tap(self, y: int, x: int, span: int, turn: int) -> tuple[int, int]:
        shift_y, plane_y = divmod(y, self.lines.step)
        if self.lines.around:
            shift_y = (shift_y + turn) % self.lines.around
        shift_x, plane_x = divmod(x, self.columns.step)
        return (self.lines.planes.index(plane_y) * self.plane_y(span)
                + self.columns.planes.index(plane_x) * self.plane_x(span, plane_y)
                + self.before + (shift_y - self.lines.shifts[0]) * self.pitch + shift_x,
                self.mask(plane_x, shift_x))
