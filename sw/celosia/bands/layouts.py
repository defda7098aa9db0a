"""How a layer's input lies in the banks: where fills put it, and where taps find it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from celosia.bands.grid import Grid
from celosia.bands.tiles import Tiles
from celosia_spec.isa.array import ENTRY_WORDS, PIECE
from celosia_spec.isa.words import BLOCK, TAP_GROUP
from celosia_spec.qgraph import QGraph, QNode, QTensor
from celosia_spec.steps import Ring, View, stored_name

Tap: TypeAlias = tuple[int, int, int]
"""Bank rows, rotation and mask of a tap word."""

KEPT = 512
"""Layouts whose taps and tiles are kept: a search compiles a network again and again, with other
weights."""


def joined(graph: QGraph, node: QNode) -> QTensor:
    """Return what a node reads as one tensor: its inputs, one behind another along the channels."""
    tensors = [graph.tensors[name] for name in node.inputs]
    return replace(tensors[0], shape=(sum(tensor.shape[0] for tensor in tensors),
                                      *tensors[0].shape[1:]))


def is_vector(node: QNode, source: QTensor, result: QTensor) -> bool:
    """Whether a node looks at its whole input at once, and that is one map."""
    geometry = node.geometry
    return (len(node.inputs) == 1 and not isinstance(source, View)
            and geometry.kernel == source.shape[1:]
            and result.shape[1:] == (1, 1) and not any(geometry.padding)
            and node.epilogue.pool is None)


def strides(graph: QGraph) -> dict[str, int]:
    """Return the elements from one channel of each stored map to the next: whole words, or no more
    than there are where all readers look at their whole input, as it lies."""
    found = {}
    for name, tensor in graph.tensors.items():
        if isinstance(tensor, View):
            continue
        lines = tensor.lines if isinstance(tensor, Ring) else tensor.shape[1]
        positions = lines * tensor.shape[2]
        packed = all(_as_it_lies(graph, node) for node in graph.nodes
                     for read in (*node.inputs, node.epilogue.add)
                     if read is not None and stored_name(graph.tensors, read) == name)
        found[name] = positions if packed else -(-positions // ENTRY_WORDS) * ENTRY_WORDS
    return found | {name: found[tensor.of] for name, tensor in graph.tensors.items()
                    if isinstance(tensor, View)}


def _as_it_lies(graph: QGraph, node: QNode) -> bool:
    """Whether a node only ever reads maps whose channels follow each other without gaps, if they
    do; where channels are read one by one, as averages do, each begins with a whole word."""
    source, result = graph.tensors[node.input], graph.tensors[node.output]
    return is_vector(node, source, result) and (
        source.shape[1:] == (1, 1) or not is_depthwise(node, source, result))


def is_depthwise(node: QNode, source: QTensor, result: QTensor) -> bool:
    """Whether every row of a node reads the channel of its own number, and no other."""
    matrix, kernel = node.matrix, node.geometry.kernel[0] * node.geometry.kernel[1]
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return (source.shape[0] == result.shape[0] > 1
            and bool((matrix.indices // kernel == row).all()))


def pieces(rows: int) -> int:
    """Return the bank rows of whole pieces that hold so many."""
    return -(-rows // PIECE) * PIECE


def tap_step(phases: Sequence[Sequence[Tap]]) -> int:
    """Return the words of the tap table from one phase to the next."""
    return max((-(-len(taps) // TAP_GROUP) * TAP_GROUP for taps in phases[:-1]), default=0)


def tap_words(phases: Sequence[Sequence[Tap]]) -> int:
    """Return the words of the tap table that phases take."""
    return (len(phases) - 1) * tap_step(phases) + len(phases[-1])


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What lies in the banks as one piece: what some lines of the output read of some channels.

    line, lines : of the output.   channel, channels : of the input.   added, addends : the first
    channel of the residual operand, and how many.   row : the bank row at which it begins; rows
    follow each other without an end, and the banks hold them modulo their depth.
    """

    line: int
    lines: int
    channel: int
    channels: int
    added: int = 0
    addends: int = 0
    row: int = 0


@dataclass(frozen=True, kw_only=True)
class Band:
    """Tiles of a stretch that are computed one after the other, and what is filled for them.

    tile, tiles : the first one, and how many.   begin, end : grid lines of the stretch.
    beside : they are filled while the band before computes, else behind it.
    """

    stretch: Stretch
    tile: int
    tiles: int
    begin: int
    end: int
    beside: bool


@dataclass(frozen=True, kw_only=True)
class Vector:
    """Elements of a map as they lie in main memory, side by side in the banks.

    channels, positions : of a stretch, and of each channel.   size : P'.   stride : elements from a
    channel to the next.   row : the first bank row.
    """

    channels: int
    positions: int
    size: int
    stride: int
    row: int = 0

    @property
    def elements(self) -> int:
        """Elements from the first to the last one, gaps between channels with them."""
        return (self.channels - 1) * self.stride + self.positions

    @property
    def rows(self) -> int:
        """Bank rows, whole pieces."""
        return pieces(-(-self.elements // self.size))

    @property
    def blocks(self) -> int:
        """Tap words of a bank."""
        return -(-self.rows // BLOCK)

    def place(self, element: int) -> tuple[int, int]:
        """Return (bank rows, bank) from the first element to another one."""
        return divmod(element, self.size)

    def taps(self) -> list[Tap]:
        """Return all taps."""
        return [(self.row + block * BLOCK, bank, 0) for bank in range(self.size)
                for block in range(self.blocks)]

    def at(self, channels: int) -> np.ndarray:
        """Return how far the elements of so many channels lie from the first one, int64."""
        channel = np.arange(channels)[:, None] % self.channels
        return (channel * self.stride + np.arange(self.positions)).ravel()

    def column(self, at: np.ndarray) -> np.ndarray:
        """Return the column index of elements that lie so far from the first one, int64."""
        return at % self.size * (self.blocks * BLOCK) + at // self.size

    def index(self, channels: int) -> np.ndarray:
        """Return the column index of every element of so many channels, int64."""
        return self.column(self.at(channels))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A layer that looks at its whole input, or at whole channels of it, a stretch; behind it lie
    those channels of a residual operand that a stretch has.

    page : elements of its pages, of which the banks hold two, even ones before odd ones; 0 where
    they hold all of it.   copies : how often the taps of two pages stand in the table, so that
    columns go on behind its end as they do behind the two.
    """

    source: Vector
    operand: Vector | None = None
    page: int = 0
    copies: int = 1

    @property
    def pages(self) -> int:
        """Pages of the input."""
        return len(self.begins) if self.page else 1

    @property
    def begins(self) -> np.ndarray:
        """Elements from the input's first one to that of each page, int64 (pages,). Where there are
        gaps between channels, a page has whole ones, or a piece of one."""
        source = self.source
        if source.stride == source.positions or source.channels == 1:
            return np.arange(0, source.elements, self.page)
        if whole := min(self.page // source.stride, self.rows):
            return np.arange(0, source.elements, whole * source.stride)
        channels = np.arange(source.channels)[:, None] * source.stride
        return (channels + np.arange(0, source.positions, self.page)).ravel()

    def held(self, page: int) -> Vector:
        """Return the elements of a page, and where they lie in the banks."""
        source, begin = self.source, int(self.begins[page])
        end = int([*self.begins, source.elements][page + 1])
        row = self.place(page).row
        if source.channels > 1 and source.stride != source.positions:
            if self.page >= source.stride:
                return replace(source, channels=-(-(end - begin) // source.stride), row=row)
            end = min(end, begin // source.stride * source.stride + source.positions)
        return replace(source, channels=1, positions=end - begin, row=row)

    @property
    def orders(self) -> int:
        """Orders in which batches read its pages, one after the other."""
        return 2 if self.page else 1

    def place(self, page: int) -> Vector:
        """Return where a page lies in the banks."""
        return replace(self.source, channels=1, positions=self.page,
                       row=page % 2 * self.page // self.source.size)

    def order(self, batch: int) -> list[int]:
        """Return the pages in the order in which the batch of a number reads them, even and odd
        ones in turn: each begins with the two that the one before it has read last."""
        found = list(range(self.pages))
        if batch % 2 == 0:
            return found
        if self.pages % 2:
            return found[::-1]
        return [page for even in found[-2::-2] for page in (even, even + 1)]

    def index(self, channels: int, batch: int = 0) -> np.ndarray:
        """Return the column index of every element of so many channels for the batch of a number,
        int64."""
        if not self.page:
            return self.source.index(channels)
        at = self.source.at(channels)
        page = np.searchsorted(self.begins, at, side="right") - 1
        within = at - self.begins[page]
        return np.argsort(self.order(batch))[page] * self.page + self.place(0).column(within)

    @property
    def channels(self) -> int:
        """Channels of the input in a stretch."""
        return self.source.channels

    @property
    def addends(self) -> int:
        """Channels of a residual operand in a stretch."""
        return 0 if self.operand is None else self.operand.channels

    @property
    def around(self) -> bool:
        """No: a ring is not read so."""
        return False

    @property
    def depth(self) -> int:
        """Bank rows from one position group to the next."""
        return 1

    @property
    def rows(self) -> int:
        """Bank rows."""
        if self.page:
            return 2 * self.page // self.source.size
        return self.source.rows + (0 if self.operand is None else self.operand.rows)

    def operand_taps(self) -> list[Tap]:
        """Return the taps of a residual operand."""
        return [] if self.operand is None else self.operand.taps()

    def operand_index(self) -> np.ndarray:
        """Return the column index of every channel of a residual operand in a stretch, int64."""
        return np.zeros(0, np.int64) if self.operand is None else self.operand.index(self.addends)

    def phases(self, turn: int = 0) -> list[list[Tap]]:
        """Return the taps of each phase, those of a residual operand first; no layer that looks at
        its whole input at once reads a ring."""
        if self.page:
            return [[*self.place(0).taps(), *self.place(1).taps()] * self.copies]
        return [taps for taps in (self.operand_taps(), self.source.taps()) if taps]

    def tiles(self, lines: int) -> Tiles:
        """Return the one tile of the one line."""
        size = self.source.size
        return Tiles(rows=np.zeros(1, np.int64), begins=np.zeros((1, size + 1), bool),
                     written=np.arange(size)[None] == 0, lines=np.zeros((1, 2), np.int64))

    def rows_of(self, begin: int, end: int) -> tuple[int, int]:
        """Return the bank rows of all that there is."""
        return 0, self.rows


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A layer that looks at a window: some lines of some channels, parted into planes.

    grid : of the layer.   size : P'.   span : grid lines of the longest stretch.   channels : of
    a stretch.   addends : channels of a residual operand in a stretch, whose elements have the
    positions of the outputs.
    """

    grid: Grid
    size: int
    span: int
    channels: int
    addends: int = 0

    @property
    def around(self) -> bool:
        """Whether a ring is stored as it lies."""
        return self.grid.lines.around > 0

    @property
    def depth(self) -> int:
        """Bank rows from one position group to the next."""
        return self.operand + pieces(self.addends)

    @property
    def operand(self) -> int:
        """Bank rows of a position group before those of a residual operand."""
        return pieces(self.channels)

    @property
    def rows(self) -> int:
        """Bank rows of the longest stretch."""
        return -(-self.grid.positions(self.span) // self.size) * self.depth

    @property
    def blocks(self) -> int:
        return -(-self.channels // BLOCK)

    def rows_of(self, begin: int, end: int) -> tuple[int, int]:
        """Return the bank rows, from the first to before the last one, that grid lines of a stretch
        touch. What has several planes is one piece."""
        if not self.grid.single:
            return 0, self.rows
        first, last = begin * self.grid.pitch, self.grid.before + end * self.grid.pitch
        return first // self.size * self.depth, -(-last // self.size) * self.depth

    @property
    def pages(self) -> int:
        """One: batches read all of a stretch."""
        return 1

    @property
    def orders(self) -> int:
        """One."""
        return 1

    def place(self, position: int) -> tuple[int, int]:
        """Return (bank rows, bank) of a position, which may be negative."""
        return position // self.size * self.depth, position % self.size

    def operand_taps(self) -> list[Tap]:
        """Return the taps of a residual operand."""
        return [(self.operand + channel, 0, 0) for channel in range(0, self.addends, BLOCK)]

    def operand_index(self) -> np.ndarray:
        """Return the column index of every channel of a residual operand in a stretch, int64."""
        return np.arange(self.addends)

    def phases(self, turn: int = 0) -> list[list[Tap]]:
        """Return the taps of each phase: those of a residual operand, or of each position of the
        pooling window.   turn : as of `Grid.taps`."""
        return _phases(self, turn)

    def index(self, channels: int, kernel: int) -> np.ndarray:
        """Return the column index of every column of the weights, int64 (channels * kernel,)."""
        tap = np.arange(kernel) * (self.blocks * BLOCK)
        return (np.arange(channels)[:, None] % self.channels + tap).ravel()

    def tiles(self, lines: int) -> Tiles:
        """Return the tiles of so many lines of the output."""
        return _tiles(self, lines)


@lru_cache(maxsize=KEPT)
def _phases(layout: Lines, turn: int) -> list[list[Tap]]:
    found = [layout.operand_taps()] if layout.addends else []
    for window in layout.grid.taps(layout.span, turn):
        found.append([(rows + block * BLOCK, bank, mask) for position, mask in window
                      for rows, bank in [layout.place(position)] for block in range(layout.blocks)])
    return found


@lru_cache(maxsize=KEPT)
def _tiles(layout: Lines, lines: int) -> Tiles:
    grid, size = layout.grid, layout.size
    pitch, width = grid.pitch, grid.columns.count
    first = np.arange(0, (lines - 1) * pitch + width, size)
    at = first[:, None] + np.arange(size + 1)
    line, column = np.divmod(at[:, :-1], pitch)
    written = ((column < width) & (line < lines) & (column % grid.columns.every == 0)
               & (line % grid.lines.every == 0))
    kept = written.any(axis=1)
    written, line = written[kept], line[kept]
    # What lies between a line's last column and the next line begins like a line.
    begins = (at % pitch == 0) | (at % pitch == width)
    return Tiles(rows=first[kept] // size * layout.depth, begins=begins[kept],
                 written=written, lines=np.stack([
                     np.where(written, line, lines).min(axis=1),
                     np.where(written, line, -1).max(axis=1)], axis=1))


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A `celosia_spec.isa.fills.Fill` of one plane of lines, with positions in place of rows and
    banks; position 0 is where a stretch begins."""

    zero: bool
    only: bool
    step: int
    phase: int
    element: int
    channels: int
    run: int
    lines: int
    pitch: int
    position: int
    plane_x: int
    line: int


def addend(layout: Lines, stretch: Stretch, begin: int, end: int) -> Rectangle | None:
    """Return the fill of a residual operand beside grid lines of a stretch: those lines of it that
    are added to outputs for which the grid lines are filled."""
    grid = layout.grid
    reach = grid.span(0)
    first, last = max(begin - reach, 0), end - reach
    if not layout.addends or first >= last:
        return None
    width, lines = grid.columns.count, last - first
    whole = grid.pitch == width
    return Rectangle(
        zero=False, only=False, step=1, phase=0, element=(stretch.line + first) * width,
        channels=stretch.addends, run=lines * width if whole else width,
        lines=1 if whole else lines, pitch=width, position=first * grid.pitch, plane_x=0,
        line=grid.pitch)


def rectangles(layout: Lines, stretch: Stretch, begin: int, end: int) -> list[Rectangle]:
    """Return the fills of grid lines of a stretch: zeros around the map, and then its lines."""
    if begin == end:
        return []
    grid, span = layout.grid, layout.span
    axis, across = grid.lines, grid.columns
    height, width = axis.size, across.size
    single = len(across.planes) == 1 and across.step > 1
    phase = -across.planes[0] % across.step if single else 0
    whole = axis.step == across.step == 1 and grid.pitch == width
    first = stretch.line + axis.shifts[0]
    zeros, found = [], []
    for index, plane in enumerate(axis.planes):
        # The map's lines on this plane are grid lines `top` to before `bottom` of the stretch.
        top = min(max(-first, begin), end)
        bottom = min(max(-(-(height - plane) // axis.step) - first, top), end)
        at = grid.before + index * grid.plane_y(span)
        for start, stop in ((begin, top), (bottom, end)):
            if start < stop:
                zeros += [_zeros(layout, stretch, at + place * grid.plane_x(span, plane)
                                 + start * grid.pitch, across.length(column), stop - start)
                          for place, column in enumerate(across.planes) if across.length(column)]
        if top < bottom:
            lines = bottom - top
            found.append(Rectangle(
                zero=False, only=single, step=across.step, phase=phase,
                element=((first + top) * axis.step + plane) * width, channels=stretch.channels,
                run=lines * width if whole else width, lines=1 if whole else lines,
                pitch=axis.step * width, position=at + top * grid.pitch - (phase > 0),
                plane_x=0 if single else grid.plane_x(span, plane), line=grid.pitch))
    if grid.filled:
        zeros += _gaps(layout, stretch, begin, end)
    return zeros + found


def _zeros(layout: Lines, stretch: Stretch, position: int, run: int, lines: int) -> Rectangle:
    return Rectangle(zero=True, only=False, step=1, phase=0, element=0, channels=stretch.channels,
                     run=run, lines=lines, pitch=0, position=position, plane_x=0,
                     line=layout.grid.pitch)


def _gaps(layout: Lines, stretch: Stretch, begin: int, end: int) -> list[Rectangle]:
    """Return the fills with zeros before, between and behind grid lines of a stretch."""
    grid, span = layout.grid, layout.span
    found = []
    for index_y, plane_y in enumerate(grid.lines.planes):
        for index_x, plane in enumerate(grid.columns.planes):
            at = index_y * grid.plane_y(span) + index_x * grid.plane_x(span, plane_y)
            length = grid.columns.length(plane)
            if grid.before and begin == 0:
                found.append(_zeros(layout, stretch, at, grid.before, 1))
            if grid.pitch > length:
                found.append(_zeros(layout, stretch, at + grid.before + begin * grid.pitch + length,
                                    grid.pitch - length, end - begin))
    return found
