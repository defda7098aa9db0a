"""How a layer's input lies in the banks: where fills put it, and where taps find it."""

from dataclasses import dataclass, replace

import numpy as np

from celosia.bands.grid import Grid
from celosia.bands.tiles import Tiles
from celosia_spec.isa import BLOCK
from celosia_spec.qgraph import QGraph, QNode, QTensor
from celosia_spec.stream.array import EDGE, ENTRY_WORDS


def joined(graph: QGraph, node: QNode) -> QTensor:
    """Return what a node reads as one tensor: its inputs, one behind another along the channels."""
    tensors = [graph.tensors[name] for name in node.inputs]
    return replace(tensors[0], shape=(sum(tensor.shape[0] for tensor in tensors),
                                      *tensors[0].shape[1:]))


def is_vector(node: QNode, source: QTensor, result: QTensor) -> bool:
    """Whether a node looks at its whole input at once, and that is one map."""
    geometry = node.geometry
    return (len(node.inputs) == 1 and geometry.kernel == source.shape[1:]
            and result.shape[1:] == (1, 1) and not any(geometry.padding)
            and node.epilogue.pool is None)


def strides(graph: QGraph) -> dict[str, int]:
    """Return the elements from one channel of each stored map to the next: whole words, or one
    where a channel has one position and all readers look at the whole map."""
    found = {}
    for name, tensor in graph.tensors.items():
        positions = tensor.shape[1] * tensor.shape[2]
        packed = positions == 1 and all(
            is_vector(node, tensor, graph.tensors[node.output]) for node in graph.nodes
            if name in node.inputs)
        found[name] = 1 if packed else -(-positions // ENTRY_WORDS) * ENTRY_WORDS
    adding = [(node.epilogue.add, node.output) for node in graph.nodes if node.epilogue.add]
    # A residual operand is found where the output lies.
    while unlike := [pair for pair in adding if found[pair[0]] != found[pair[1]]]:
        found |= {name: ENTRY_WORDS for pair in unlike for name in pair}
    return found


def is_depthwise(node: QNode, source: QTensor, result: QTensor) -> bool:
    """Whether every row of a node reads the channel of its own number, and no other."""
    matrix, kernel = node.matrix, node.geometry.kernel[0] * node.geometry.kernel[1]
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return (source.shape[0] == result.shape[0] > 1
            and bool((matrix.indices // kernel == row).all()))


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What lies in the banks as one piece: what some lines of the output read of some channels.

    line, lines : of the output.   channel, channels : of the input.   row : the bank row at which
    it begins; rows follow each other without an end, and the banks hold them modulo their depth.
    """

    line: int
    lines: int
    channel: int
    channels: int
    row: int


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
class Spread:
    """A layer that looks at its whole input: elements as they lie in main memory, side by side in
    the banks. size : P'.   source : the input.   stride : elements from a channel to the next."""

    source: QTensor
    size: int
    stride: int

    @property
    def elements(self) -> int:
        """Elements from the first to the last one of the map, gaps between channels included."""
        count, height, width = self.source.shape
        return (count - 1) * self.stride + height * width

    @property
    def rows(self) -> int:
        """Bank rows."""
        return -(-self.elements // self.size)

    @property
    def blocks(self) -> int:
        """Tap words of a bank."""
        return -(-self.rows // BLOCK)

    def taps(self) -> list[tuple[int, int, int]]:
        """Return (rows, rotation, mask) of every tap word."""
        return [(block * BLOCK, bank, 0) for bank in range(self.size)
                for block in range(self.blocks)]

    def index(self) -> np.ndarray:
        """Return the column index of every column of the weights, int64 (C * H * W,)."""
        count, height, width = self.source.shape
        at = (np.arange(count)[:, None] * self.stride
              + np.arange(height * width)).ravel()
        return at % self.size * (self.blocks * BLOCK) + at // self.size

    def tiles(self, lines: int) -> Tiles:
        """Return the one tile of the one line."""
        return Tiles(rows=np.zeros(1, np.int64), begins=np.zeros((1, self.size + 2 * EDGE), bool),
                     written=np.arange(self.size)[None] == 0, lines=np.zeros((1, 2), np.int64))

    def rows_of(self, begin: int, end: int) -> tuple[int, int]:
        """Return the bank rows of all that there is."""
        return 0, self.rows


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A layer that looks at a window: some lines of some channels, parted into planes.

    grid : of the layer.   size : P'.   span : grid lines of the longest stretch.   channels : of
    a stretch.
    """

    grid: Grid
    size: int
    span: int
    channels: int

    @property
    def rows(self) -> int:
        """Bank rows of the longest stretch."""
        return -(-self.grid.positions(self.span) // self.size) * self.channels

    @property
    def blocks(self) -> int:
        return -(-self.channels // BLOCK)

    def rows_of(self, begin: int, end: int) -> tuple[int, int]:
        """Return the bank rows, from the first to before the last one, that grid lines of a stretch
        touch. What has several planes is one piece."""
        if not self.grid.single:
            return 0, self.rows
        first, last = begin * self.grid.pitch, self.grid.before + end * self.grid.pitch
        return (first // self.size * self.channels, -(-last // self.size) * self.channels)

    def place(self, position: int) -> tuple[int, int]:
        """Return (bank rows, bank) of a position, which may be negative."""
        return position // self.size * self.channels, position % self.size

    def taps(self) -> list[tuple[int, int, int]]:
        """Return (rows, rotation, mask) of every tap word, phase by phase."""
        found = []
        for position, mask in self.grid.taps(self.span):
            rows, bank = self.place(position)
            found += [(rows + block * BLOCK, bank, mask) for block in range(self.blocks)]
        return found

    def index(self, channels: int, kernel: int) -> np.ndarray:
        """Return the column index of every column of the weights, int64 (channels * kernel,)."""
        tap = np.arange(kernel) * (self.blocks * BLOCK)
        return (np.arange(channels)[:, None] % self.channels + tap).ravel()

    def tiles(self, lines: int) -> Tiles:
        """Return the tiles of so many lines of the output."""
        pitch, width = self.grid.pitch, self.grid.columns.count
        first = np.arange(0, (lines - 1) * pitch + width, self.size)
        at = first[:, None] + np.arange(-EDGE, self.size + EDGE)
        line, column = np.divmod(at[:, EDGE:-EDGE], pitch)
        written = ((column < width) & (line < lines) & (column % self.grid.columns.every == 0)
                   & (line % self.grid.lines.every == 0))
        kept = written.any(axis=1)
        written, line = written[kept], line[kept]
        return Tiles(rows=first[kept] // self.size * self.channels, begins=at[kept] % pitch == 0,
                     written=written, lines=np.stack([
                         np.where(written, line, lines).min(axis=1),
                         np.where(written, line, -1).max(axis=1)], axis=1))


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A `celosia_spec.stream.fills.Fill` of one plane of lines, with positions in place of rows and
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


def rectangles(layout: Lines, source: QTensor, stretch: Stretch, begin: int,
               end: int) -> list[Rectangle]:
    """Return the fills of grid lines of a stretch: zeros around the map, and then its lines."""
    if begin == end:
        return []
    grid, span = layout.grid, layout.span
    height, width = source.shape[1:]
    axis, across = grid.lines, grid.columns
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
