"""How each layer runs: its row groups, its bands, and the cycles that they are counted to take."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from celosia.bands.grid import MASKS, Grid
from celosia.bands.layouts import (
    Band,
    Lines,
    Rectangle,
    Spread,
    is_depthwise,
    is_vector,
    joined,
    rectangles,
    strides,
)
from celosia.schedule.steps import batch_steps, row_order, row_words
from celosia_spec.errors import FitError
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.stream.array import ENTRY_WORDS, RING_GAP, Array
from celosia_spec.stream.controls import head_words
from celosia_spec.stream.passes import pass_cycles
from celosia_spec.stream.words import TILE_WORDS

BAND = 30
"""Cycles in which the control words of a band, and of the next one's fill, are carried out."""

DENSE = 32
"""A batch gets a step for every column, and half as many entries, where that adds no more than one
step in so many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Batches that some bands run.

    rows : of the weights in batch order, -1 for none.   steps : int64 (batches,), of a pass.
    dense : bool (batches,): every column has a step, and entries hold eight mantissas.
    bands : what runs them, one after the other.   longest : entries at which a batch is cut.
    """

    rows: np.ndarray
    steps: np.ndarray
    dense: np.ndarray
    bands: tuple[Band, ...]
    longest: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """How a node runs.

    log2_groups : of its row groups.   layout : of its input in the banks.   index : column index
    of every column of its weights.   parts : its batches and bands.   double : two bands share the
    banks.   cycles : counted, with nothing waiting for main memory but first bands.
    """

    node: QNode
    log2_groups: int
    layout: Lines | Spread
    index: np.ndarray
    parts: tuple[Part, ...]
    double: bool
    cycles: int

    @property
    def groups(self) -> int:
        return 1 << self.log2_groups

    @property
    def bands(self) -> list[Band]:
        """All bands in their order."""
        return [band for part in self.parts for band in part.bands]


def plan(graph: QGraph, array: Array) -> list[Layer]:
    """Return how each node of a graph runs: of all ways that the banks and tables hold, the one
    that is counted to take the fewest cycles. FitError where a node has none."""
    return [_fastest(graph, node, array) for node in graph.nodes]


def _fastest(graph: QGraph, node: QNode, array: Array) -> Layer:
    ways = [way for log2 in range(array.groups_max.bit_length())
            for way in _ways(graph, node, array, log2)]
    if not ways:
        raise FitError(node.name, str(node.kind), f"no band of it fits banks of {array.bank_rows} "
                       f"rows and tables of {array.taps} taps", "give it fewer channels")
    return min(ways, key=lambda way: way.cycles)


def _ways(graph: QGraph, node: QNode, array: Array, log2: int) -> Iterator[Layer]:
    source, result = joined(graph, node), graph.tensors[node.output]
    size, groups = array.positions(log2), 1 << log2
    if is_vector(node, source, result):
        spread = Spread(source=source, size=size, stride=strides(graph)[node.input])
        if spread.rows <= array.bank_rows and len(spread.taps()) <= array.taps:
            band = Band(line=0, lines=1, channel=0, channels=1)
            yield from _layer(graph, node, array, log2, spread, spread.index(), [(band,)],
                              fill=-(-spread.elements // ENTRY_WORDS))
        if not is_depthwise(node, source, result) or spread.stride == 1:
            return
    depthwise = is_depthwise(node, source, result)
    kernel = math.prod(node.geometry.kernel)
    height = result.shape[1]
    for multiple, filled in ((1, False), (size, False), (1, True)):
        grid = Grid.of(node, source, result, multiple=multiple, filled=filled)
        for channels in _channels(source.shape[0], groups) if depthwise else [source.shape[0]]:
            for lines in sorted({-(-height // count) for count in range(1, height + 1)}):
                if lines < height and channels < source.shape[0]:
                    continue
                layout = Lines(grid=grid, size=size, span=grid.span(lines), channels=channels)
                bands = [tuple(Band(line=line, lines=min(lines, height - line), channel=channel,
                                    channels=min(channels, source.shape[0] - channel))
                               for line in range(0, height, lines))
                         for channel in range(0, source.shape[0], channels)]
                double = sum(map(len, bands)) > 1
                tiles = {band.lines for part in bands for band in part}
                words = TILE_WORDS * sum(len(layout.tiles(count)) for count in tiles)
                taps = layout.taps()
                if (layout.rows * (1 + double) > array.bank_rows or words > array.tiles
                        or len(taps) > array.taps or max(mask for *_, mask in taps) > MASKS):
                    continue
                fills = rectangles(layout, source, bands[0][0])
                yield from _layer(graph, node, array, log2, layout,
                                  layout.index(source.shape[0], kernel), bands,
                                  fill=sum(_accesses(fill) for fill in fills))


def _accesses(fill: Rectangle) -> int:
    """Return the cycles that a fill takes, about."""
    rate = {1: ENTRY_WORDS, 2: 2}.get(fill.step[0], 1)
    return fill.channels * fill.lines * -(-fill.run // rate)


def _channels(count: int, groups: int) -> list[int]:
    """Return numbers of channels that a band of a depthwise layer may have."""
    found = {count}
    size = groups
    while size < count:
        found.add(size)
        size *= 2
    return sorted(found)


def _layer(graph: QGraph, node: QNode, array: Array, log2: int, layout: Lines | Spread,
           index: np.ndarray, bands: list[tuple[Band, ...]], *, fill: int) -> Iterator[Layer]:
    """Yield the layer, if its batches can be replayed from the ring for all their passes."""
    groups, matrix = 1 << log2, node.matrix
    words = row_words(matrix.indptr, index[matrix.indices])
    result = graph.tensors[node.output]
    phases = math.prod(node.epilogue.pool.window) if node.epilogue.pool else 1
    heads = head_words(signed_in=graph.tensors[node.input].signed) * groups + 1
    least = pass_cycles(array, log2_groups=log2, signed_in=graph.tensors[node.input].signed,
                        wide=node.output == graph.output, residual=node.epilogue.add is not None)
    parts, cycles = [], fill
    for own in bands:
        rows = row_order(matrix, groups, keep=False)
        if len(bands) > 1:
            inside = np.arange(own[0].channel, own[0].channel + own[0].channels)
            order = row_order(matrix[inside], groups, keep=False)
            rows = np.where(order < 0, -1, inside[order])
        steps = batch_steps(words, rows, groups)
        columns = int(index.max()) + 1
        dense = columns * (DENSE - 1) <= steps * DENSE
        steps = np.where(dense, columns, steps)
        taken = -(-steps * groups // np.where(dense, 2 * ENTRY_WORDS, ENTRY_WORDS))
        passes = phases * max(len(layout.tiles(band.lines)) for band in own)
        # A batch of one pass is cut, so that the next part is fetched meanwhile.
        longest = array.ring // 2 if passes == 1 else array.ring - RING_GAP
        if passes > 1 and int(taken.max()) > longest:
            return
        parts.append(Part(rows=rows, steps=steps, dense=dense, bands=own, longest=longest))
        entries = int((taken + -(-heads // ENTRY_WORDS)).sum())
        for band in own:
            tiles = len(layout.tiles(band.lines))
            written = -(-band.lines * result.shape[2] // ENTRY_WORDS) * len(rows)
            cycles += BAND + max(int(np.maximum(steps, least).sum()) * tiles * phases,
                                 entries + written + fill)
    yield Layer(node=node, log2_groups=log2, layout=layout, index=index, parts=tuple(parts),
                 double=sum(map(len, bands)) > 1, cycles=cycles)
