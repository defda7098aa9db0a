"""How a layer's input lies in the banks: where fills put it, and where taps find it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np

from celosia.bands.grid import Grid
from celosia.bands.tiles import Tiles
from celosia_spec.isa.array import ENTRY_WORDS, PIECE
from celosia_spec.isa.words import BLOCK, TAP_GROUP
from celosia_spec.qgraph import QGraph, QNode, QTensor, as_made
from celosia_spec.steps import Ring, View, stored_name

Tap: TypeAlias = tuple[int, int, int]
"""Bank rows, rotation and mask of a tap word."""

KEPT = 512
"""Layouts whose taps and tiles are kept: a search compiles a network again and again, with other
weights."""


def joined(graph: QGraph, node: QNode) -> QTensor:
    """Return what a node reads as one tensor: its inputs, one behind another along the channels,
    with what stands around them."""
    tensors = [graph.tensors[name] for name in node.inputs]
    return replace(tensors[0], shape=(sum(tensor.shape[0] for tensor in tensors),
                                      *node.geometry.bordered(tensors[0].shape[1:])))


def is_vector(node: QNode, source: QTensor, result: QTensor) -> bool:
    """Whether a node looks at its whole input at once, and that is one map."""
    geometry = node.geometry
    return (len(node.inputs) == 1 and not isinstance(source, View)
            and geometry.kernel == source.shape[1:]
            and result.shape[1:] == (1, 1) and not any(geometry.padding + geometry.border)
            and node.epilogue.pool is None)


def strides(graph: QGraph) -> dict[str, int]:
    """Return the elements from one channel of each stored map to the next: whole words, or no more
    than there are where all readers look at their whole input, as it lies."""
    padded = {stored_name(graph.tensors, read) for node in graph.nodes
              if not _as_it_lies(graph, node)
              for read in (*node.inputs, node.epilogue.add) if read is not None}
    found = {}
    for name, tensor in graph.tensors.items():
        if isinstance(tensor, View):
            continue
        lines = tensor.lines if isinstance(tensor, Ring) else tensor.shape[1]
        positions = lines * tensor.shape[2]
        found[name] = (-(-positions // ENTRY_WORDS) * ENTRY_WORDS if name in padded else
                       positions)
    return found | {name: found[tensor.of] for name, tensor in graph.tensors.items()
                    if isinstance(tensor, View)}


def _as_it_lies(graph: QGraph, node: QNode) -> bool:
    """Whether a node only ever reads maps whose channels follow each other without gaps, if they
    do; where channels are read one by one, as averages do, each begins with a whole word."""
    source, result = graph.tensors[node.input], as_made(graph.tensors, node)
    return is_vector(node, source, result) and (
        source.shape[1:] == (1, 1) or not is_depthwise(node, source, result))


def is_depthwise(node: QNode, source: QTensor, result: QTensor) -> bool:
    """Whether every row of a node reads the channel of its own number, and no other."""
    matrix, kernel = node.matrix, node.geometry.kernel[0] * node.geometry.kernel[1]
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return (source.shape[0] == result.shape[0] > 1
            and bool((matrix.indices // kernel == row).all()))


def line_index(held: int, channels: int, kernel: int) -> np.ndarray:
    """Return the column index of every column of the weights, int64 (channels * kernel,), where so
    many channels are held in the banks at a time."""
    tap = np.arange(kernel) * (-(-held // BLOCK) * BLOCK)
    found: np.ndarray = (np.arange(channels)[:, None] % held + tap).ravel()
    return found


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

    @cached_property
    def depth(self) -> int:
        """Bank rows from one position group to the next."""
        return self.operand + pieces(self.addends)

    @cached_property
    def operand(self) -> int:
        """Bank rows of a position group before those of a residual operand."""
        return pieces(self.channels)

    @cached_property
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
        return line_index(self.channels, channels, kernel)

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
