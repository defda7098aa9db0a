"""How a layer's input lies in the banks: where fills put it, and where taps find it."""

from dataclasses import dataclass, replace

import numpy as np

from celosia.bands.grid import Grid
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
    for node in graph.nodes:
        # A residual operand is found where the output lies.
        if (add := node.epilogue.add) is not None and found[add] != found[node.output]:
            found[add] = found[node.output] = ENTRY_WORDS
    return found


def is_depthwise(node: QNode, source: QTensor, result: QTensor) -> bool:
    """Whether every row of a node reads the channel of its own number, and no other."""
    matrix, kernel = node.matrix, node.geometry.kernel[0] * node.geometry.kernel[1]
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return (source.shape[0] == result.shape[0] > 1
            and bool((matrix.indices // kernel == row).all()))


@dataclass(frozen=True, kw_only=True)
class Band:
    """Lines of the output, and the channels of the input that are in the banks for them."""

    line: int
    lines: int
    channel: int
    channels: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiles:
    """The tiles of a band.

    rows : first bank rows, int64 (tiles,).   begins : which positions begin a line, from EDGE
    before to EDGE behind, bool (tiles, P' + 2 EDGE).   written : lanes, bool (tiles, P').
    """

    rows: np.ndarray
    begins: np.ndarray
    written: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


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
                     written=np.arange(self.size)[None] == 0)


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A layer that looks at a window: some lines of some channels, parted into planes.

    grid : of the layer.   size : P'.   span : grid lines that are stored.   channels : of a band.
    """

    grid: Grid
    size: int
    span: int
    channels: int

    @property
    def rows(self) -> int:
        """Bank rows."""
        return -(-self.grid.positions(self.span) // self.size) * self.channels

    @property
    def blocks(self) -> int:
        return -(-self.channels // BLOCK)

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
        """Return the tiles of a band of so many lines of the output."""
        pitch, width = self.grid.pitch, self.grid.columns.count
        first = np.arange(0, (lines - 1) * pitch + width, self.size)
        at = first[:, None] + np.arange(-EDGE, self.size + EDGE)
        inside = at[:, EDGE:-EDGE]
        written = (inside % pitch < width) & (inside // pitch < lines)
        kept = written.any(axis=1)
        return Tiles(rows=first[kept] // self.size * self.channels, begins=at[kept] % pitch == 0,
                     written=written[kept])


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A `celosia_spec.stream.fills.Fill`, with positions in place of rows and banks. Banks begin at
    bank row 0."""

    zero: bool
    only: bool
    step: tuple[int, int]
    phase: tuple[int, int]
    element: int
    channels: int
    run: int
    lines: int
    pitch: int
    position: int
    plane_x: int
    plane_y: int
    line: int


def rectangles(layout: Lines, source: QTensor, band: Band) -> list[Rectangle]:
    """Return the fills of a band: zeros above the map, its lines, zeros below."""
    grid = layout.grid
    height, width = source.shape[1:]
    axis, across = grid.lines, grid.columns
    first = band.line + axis.shifts[0]
    single_y, single_x = len(axis.planes) == 1, len(across.planes) == 1 and across.step > 1
    step_y = 1 if single_y else axis.step
    if single_y:
        wanted = [g * axis.step + axis.planes[0] for g in range(first, first + layout.span)]
    else:
        wanted = list(range(first * axis.step, (first + layout.span) * axis.step))
    phase_x = -across.planes[0] % across.step if single_x else 0
    column = -1 if phase_x else 0
    plane_x = 0 if single_x else grid.plane_x(layout.span)
    plane_y = grid.plane_y(layout.span)
    apart = axis.step * width if single_y else width
    whole = step_y == 1 and across.step == 1 and grid.pitch == width and apart == width
    found = []
    for zero, lines in ((True, [y for y in wanted if y < 0]),
                        (False, [y for y in wanted if 0 <= y < height]),
                        (True, [y for y in wanted if y >= height])):
        if not lines:
            continue
        at = wanted.index(lines[0])
        position = grid.before + at // step_y * grid.pitch + at % step_y * plane_y + column
        found.append(Rectangle(
            zero=zero, only=single_x, step=(across.step, step_y), phase=(phase_x, at % step_y),
            element=0 if zero else lines[0] * width, channels=band.channels,
            run=len(lines) * width if whole else width, lines=1 if whole else len(lines),
            pitch=apart, position=position, plane_x=plane_x, plane_y=plane_y,
            line=grid.pitch - (step_y - 1) * plane_y))
    return found + (_gaps(layout, band) if grid.filled else [])


def _gaps(layout: Lines, band: Band) -> list[Rectangle]:
    """Return the fills with zeros before, between and behind a band's lines."""
    grid, span = layout.grid, layout.span
    found = []
    for index_y in range(len(grid.lines.planes)):
        for index_x, plane in enumerate(grid.columns.planes):
            begin = index_y * grid.plane_y(span) + index_x * grid.plane_x(span)
            length = grid.columns.length(plane)
            for position, run, lines in ((begin, grid.before, 1),
                                         (begin + grid.before + length, grid.pitch - length, span)):
                if run:
                    found.append(Rectangle(
                        zero=True, only=False, step=(1, 1), phase=(0, 0), element=0,
                        channels=band.channels, run=run, lines=lines, pitch=0, position=position,
                        plane_x=0, plane_y=0, line=grid.pitch))
    return found
