"""The ways in which a layer can run: its row groups, layouts in the banks, bands and batches."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

from celosia.bands.counting import Way, Work
from celosia.bands.dealing import loads
from celosia.bands.filling import page_record
from celosia.bands.grid import NONE, Grid
from celosia.bands.layouts import Band, Lines, Stretch, is_depthwise, is_vector, joined, tap_words
from celosia.bands.pages import TURN, dense_steps, page_of, page_steps, piece_steps, words_held
from celosia.bands.rows import row_order
from celosia.bands.spreads import Spread, Vector
from celosia.bands.tiles import TileTable
from celosia_spec.isa.array import ENTRY_WORDS, RING_GAP, Array
from celosia_spec.isa.controls import BATCH, head_words
from celosia_spec.isa.fills import cycles
from celosia_spec.isa.passes import pass_cycles
from celosia_spec.isa.words import BLOCK, TILE_WORDS
from celosia_spec.qgraph import QGraph, QNode, QTensor
from celosia_spec.steps import Ring, stored_name

DENSE = 32
"""A batch gets a step for every column, and half as many entries, where that adds no more than one
step in so many."""

GRIDS = ((False, False, False, False), (True, False, False, False), (False, True, False, False),
         (False, False, True, False), (True, False, True, False), (False, False, False, True))
"""Grids that are tried: lines begin on multiples of P', they are filled up with zeros, the grid is
dense, all planes of columns are stored."""

REACH = 16 * BLOCK
"""Column indices that a residual operand's step reaches."""


def ways_of(graph: QGraph, node: QNode, array: Array, log2: int,
            apart: dict[str, int]) -> Iterator[Way]:
    """Yield the ways of a node with 2^log2 row groups that the array's banks and tables hold.

    apart : `strides` of the graph.
    """
    source, result = joined(graph, node), graph.tensors[node.output]
    size, depthwise = array.positions(log2), is_depthwise(node, source, result)
    adds = node.epilogue.add is not None
    if is_vector(node, source, result):
        for channels, addends in _held(source, result, apart[node.epilogue.add or node.input], log2,
                                       depthwise=depthwise, adds=adds)[::-1 if depthwise else 1]:
            spread = spread_of(graph, node, apart, size, channels, addends)
            if spread.rows <= array.bank_rows and tap_words(spread.phases()) <= array.taps:
                yield _spread_way(graph, node, array, log2, spread)
                break
        else:
            if (way := paged_way(graph, node, array, log2, apart)) is not None and (
                    held_words(graph, node, array, way) <= most_held(array)):
                yield way
        if not depthwise or apart[node.input] == 1:
            return
    works: dict[tuple[int, int], list[Work]] = {}
    seen = set()
    masked = any(mask for taps in Grid.of(node, source, result, fill=array.fill).taps(1)
                 for _, mask in taps)
    for around, (multiple, filled, dense, every) in product(_arounds(graph, node), GRIDS):
        if dense and adds:              # what is added lies as the outputs do, without gaps
            continue
        grid = Grid.of(node, source, result, fill=array.fill, multiple=size if multiple else 1,
                       filled=filled, dense=dense, whole=every, around=around)
        # Without masks nothing has to be filled.
        key = replace(grid, filled=filled and masked)
        if key in seen:
            continue
        seen.add(key)
        for channels, addends in _held(source, result, 1, log2, depthwise=depthwise, adds=adds):
            for layout, lines in _layouts(grid, array, size, channels, addends):
                held = channels, addends
                if held not in works:
                    works[held] = works_of(graph, node, array, log2, layout)
                for bands in _bands(layout, array, lines, works[held],
                                    _shares(graph, node, layout),
                                    pooled=node.epilogue.pool is not None):
                    yield Way(log2_groups=log2, layout=layout, works=works[held], bands=bands)


def paged_way(graph: QGraph, node: QNode, array: Array, log2: int,
              apart: dict[str, int]) -> Way | None:
    """Return the way in which a node's whole input goes through the banks page by page; None where
    there is none, as not all rows read all of it, something is added, the output moves from step
    to step, or batches of several clusters would have to turn pages together.

    apart : `strides` of the graph.
    """
    source, result = joined(graph, node), graph.tensors[node.output]
    if (is_depthwise(node, source, result) or node.epilogue.add is not None
            or isinstance(result, Ring) or array.clusters > 1):
        return None
    size = array.positions(log2)
    page = page_of(array, size)
    return _spread_way(graph, node, array, log2, replace(
        spread_of(graph, node, apart, size, source.shape[0], 0),
        page=page, copies=array.taps * BLOCK // (2 * page)))


def held_words(graph: QGraph, node: QNode, array: Array, way: Way) -> int:
    """Return the words of the controls' ring that the longest batch of a `paged_way` holds."""
    work, = way.works
    heads = head_words(array, signed_in=graph.tensors[node.input].signed) << way.log2_groups
    longest = piece_steps(longest_batch(array, single=True), work.dense, 1 << way.log2_groups)
    return words_held(way.layout, work.page_steps, longest, heads)


def most_held(array: Array) -> int:
    """Return the words of the controls' ring that a batch may hold."""
    return array.controls - RING_GAP


def _arounds(graph: QGraph, node: QNode) -> list[int]:
    """Return the lines of the ring that a node may read as it lies, and 0. Where there is one line
    of results, taps can find each line of its input wherever it is."""
    ring = graph.tensors[stored_name(graph.tensors, node.input)]
    lone = (not node.joins and node.epilogue.add != node.input
            and graph.tensors[node.output].shape[1] == 1)
    return [ring.lines, 0] if isinstance(ring, Ring) and lone else [0]


def _held(source: QTensor, result: QTensor, stride: int, log2: int, *, depthwise: bool,
          adds: bool) -> list[tuple[int, int]]:
    """Return how many channels of the input, and of a residual operand, a stretch may hold.

    stride : as of `_addends`.
    """
    if depthwise:
        return [(count, count * adds) for count in _channels(source.shape[0], 1 << log2)
                if not adds or count <= REACH // stride]
    return [(source.shape[0], addends) for addends in _addends(result, stride, log2, adds=adds)]


def _addends(result: QTensor, stride: int, log2: int, *, adds: bool) -> list[int]:
    """Return how many channels of a residual operand a stretch may have, the most first: what one
    step reaches, and fewer where the banks do not hold those.

    stride : elements from one to the next.
    """
    if not adds:
        return [0]
    found = [min(result.shape[0], REACH // stride)]
    while found[-1] > 1 << log2:
        found.append(max(found[-1] // 2, 1 << log2))
    return found


def spread_of(graph: QGraph, node: QNode, apart: dict[str, int], size: int, channels: int,
              addends: int) -> Spread:
    """Return the layout of a layer that looks at so many whole channels of its input."""
    _, height, width = graph.tensors[node.input].shape
    source = Vector(channels=channels, positions=height * width, size=size,
                    stride=apart[node.input])
    if node.epilogue.add is None:
        return Spread(source=source)
    return Spread(source=source, operand=Vector(
        channels=addends, positions=1, size=size, stride=apart[node.epilogue.add],
        row=source.rows))


def _spread_way(graph: QGraph, node: QNode, array: Array, log2: int, spread: Spread) -> Way:
    bands = [[Band(stretch=Stretch(line=0, lines=1, channel=share.channel, channels=share.channels,
                                   added=share.added, addends=share.addends, row=k * spread.rows),
                   tile=0, tiles=1, begin=0, end=1,
                   beside=k > 0 and 2 * spread.rows <= array.bank_rows)]
             for k, share in enumerate(_shares(graph, node, spread))]
    return Way(log2_groups=log2, layout=spread, works=works_of(graph, node, array, log2, spread),
               bands=bands)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What the stretches of a part hold: channels of the input, and of a residual operand.

    rows : of the weights; None for all.
    """

    channel: int
    channels: int
    added: int
    addends: int
    rows: np.ndarray | None


def _shares(graph: QGraph, node: QNode, layout: Lines | Spread) -> list[Share]:
    """Return the shares of a layer's parts: of a depthwise layer some channels each, of another one
    all of them, and some of its residual operand's."""
    count, outputs = joined(graph, node).shape[0], graph.tensors[node.output].shape[0]
    inputs, addends = layout.channels, layout.addends
    if inputs < count:
        return [Share(channel=first, channels=own, added=first, addends=own if addends else 0,
                      rows=np.arange(first, first + own))
                for first in range(0, count, inputs) for own in [min(inputs, count - first)]]
    if 0 < addends < outputs:
        return [Share(channel=0, channels=count, added=first, addends=own,
                      rows=np.arange(first, first + own))
                for first in range(0, outputs, addends) for own in [min(addends, outputs - first)]]
    return [Share(channel=0, channels=count, added=0, addends=addends, rows=None)]


def _channels(count: int, groups: int) -> list[int]:
    """Return numbers of channels that a stretch of a depthwise layer may have."""
    found = {count}
    size = groups
    while size < count:
        found.add(size)
        size *= 2
    return sorted(found)


def _layouts(grid: Grid, array: Array, size: int, channels: int,
             addends: int) -> Iterator[tuple[Lines, int]]:
    """Yield layouts that tables and banks hold, and the lines of their stretches: all of them where
    lines may follow each other without an end, else as many as fit."""
    height = grid.lines.count
    for lines in ([height] if grid.single else
                  sorted({-(-height // count) for count in range(1, height + 1)}, reverse=True)):
        layout = Lines(grid=grid, size=size, span=grid.span(lines), channels=channels,
                       addends=addends)
        phases = layout.phases()
        if (tap_words(phases) <= array.taps
                and max(mask for taps in phases for *_, mask in taps) < NONE
                and (grid.single or layout.rows <= array.bank_rows)):
            yield layout, lines


def _bands(layout: Lines, array: Array, lines: int, works: Sequence[Work],
           shares: Sequence[Share], *, pooled: bool) -> Iterator[list[list[Band]]]:
    """Yield the bands of each part, as they may be."""
    height = layout.grid.lines.count
    if (lines < height and len(shares) > 1
            and layout.rows * -(-height // lines) <= array.bank_rows):
        return
    parts = [[Stretch(line=line, lines=min(lines, height - line), channel=share.channel,
                      channels=share.channels, added=share.added, addends=share.addends)
              for line in range(0, height, lines)] for share in shares]
    tiles = len(layout.tiles(lines))
    shapes = {stretch.lines for part in parts for stretch in part}
    crowded = TILE_WORDS * sum(len(layout.tiles(own)) for own in shapes) > array.tiles
    if max(work.longest for work in works) > longest_batch(array, single=False):
        # Batches that the ring does not hold are cut, and then they have one pass.
        uniform = [] if pooled else [1]
    else:
        uniform = _uniform(layout, array, parts, tiles, crowded=crowded)
    for most in uniform:
        for begin in _begins(min(most, tiles), every=_period(layout) if crowded else 1):
            bands = _cut(layout, array, parts, begin, most)
            if bands is not None and (not crowded or _table(layout, bands) <= array.tiles):
                yield bands


def _uniform(layout: Lines, array: Array, parts: list[list[Stretch]], tiles: int, *,
             crowded: bool) -> list[int]:
    """Return how many tiles a band may have at most: all of a stretch, as many as fit beside the
    next one's, and as many as fit alone."""
    every = _period(layout) if crowded else 1

    def largest(fits: Callable[[list[list[Band]]], bool]) -> int:
        low, high = 0, -(-tiles // every)
        while low < high:
            middle = (low + high + 1) // 2
            bands = _cut(layout, array, parts, [], middle * every)
            low, high = (middle, high) if bands and fits(bands) else (low, middle - 1)
        return low * every
    most = {largest(lambda bands: all(band.beside for part in bands for band in part[1:])),
            largest(lambda bands: True)} - {0}
    return sorted(most | {-(-tiles // -(-tiles // own) // every) * every or every for own in most})


def _period(layout: Lines) -> int:
    """Return the tiles after which lines begin at the same lanes again."""
    pitch = layout.grid.pitch
    return len(layout.tiles(math.lcm(math.lcm(pitch, layout.size) // pitch,
                                     layout.grid.lines.every)))


def _begins(most: int, every: int) -> Iterator[list[int]]:
    """Yield the tiles of a layer's first bands: small ones have their fill early."""
    yield []
    first = every
    while first < most:
        yield [first]
        if 2 * first < most:
            yield [first << k for k in range((most // first).bit_length()) if first << k < most]
        first *= 2


def _cut(layout: Lines, array: Array, parts: list[list[Stretch]], begin: Iterable[int],
         most: int) -> list[list[Band]] | None:
    """Return bands of ``most`` tiles, the first ones of ``begin``; None where the banks do not hold
    one of them."""
    reach = layout.grid.span(0)
    row, low = 0, None
    sizes = iter(begin)
    lines_of = {own.lines: _lines(layout, own.lines) for part in parts for own in part}
    found: list[list[Band]] = []
    for part in parts:
        found.append([])
        for own in part:
            stretch = Stretch(line=own.line, lines=own.lines, channel=own.channel,
                              channels=own.channels, added=own.added, addends=own.addends, row=row)
            lines = lines_of[own.lines]
            tile = end = 0
            while tile < len(lines):
                count = min(next(sizes, most), len(lines) - tile)
                last = lines[tile + count - 1][1] + reach + 1
                rows = layout.rows_of(lines[tile][0], last)
                # Strides may pass over lines that are filled all the same.
                filled = layout.rows_of(min(end, lines[tile][0]), last)
                if filled[1] - filled[0] > array.bank_rows:
                    return None
                found[-1].append(Band(
                    stretch=stretch, tile=tile, tiles=count, begin=end, end=last,
                    beside=low is not None and row + rows[1] - low <= array.bank_rows))
                tile, end, low = tile + count, last, row + rows[0]
            row += layout.rows_of(0, end)[1]
    return found


@cache
def _lines(layout: Lines, lines: int) -> list[list[int]]:
    found: list[list[int]] = layout.tiles(lines).lines.tolist()
    return found


def _table(layout: Lines, bands: list[list[Band]]) -> int:
    """Return the words of the tile table that bands take."""
    table = TileTable()
    for band in sorted((band for part in bands for band in part), key=lambda band: -band.tiles):
        table.add(layout.tiles(band.stretch.lines).some(band.tile, band.tiles))
    return TILE_WORDS * len(table.rows)


# Batches

def works_of(graph: QGraph, node: QNode, array: Array, log2: int,
             layout: Lines | Spread) -> list[Work]:
    """Return the batches of each part."""
    count = joined(graph, node).shape[0]
    index = (layout.index(count) if isinstance(layout, Spread) else
             layout.index(count, math.prod(node.geometry.kernel)))
    operand = layout.operand_index() if layout.addends else None
    return [_work(graph, node, array, log2, layout, index, operand, share)
            for share in _shares(graph, node, layout)]


def _work(graph: QGraph, node: QNode, array: Array, log2: int, layout: Lines | Spread,
          index: np.ndarray, operand: np.ndarray | None, share: Share) -> Work:
    """Return the batches of a share's rows."""
    groups, matrix, inside = 1 << log2, node.matrix, share.rows
    signed = graph.tensors[node.input].signed
    rows = row_order(matrix, groups)
    if inside is not None:
        order = row_order(matrix[inside], groups)
        rows = np.where(order < 0, -1, inside[order])
    steps = page_steps(matrix, layout, index, rows, groups)
    every = dense_steps(layout, index)
    dense = every.sum() * (DENSE - 1) <= steps.sum(axis=1) * DENSE
    steps = np.where(dense[:, None], every, steps)
    entries = -(-steps * groups // np.where(dense, 2 * ENTRY_WORDS, ENTRY_WORDS)[:, None])
    taken = entries.sum(axis=1)
    least = pass_cycles(array, log2_groups=log2, signed_in=signed,
                        wide=node.output == graph.output, residual=operand is not None)
    phases = math.prod(node.epilogue.pool.window) if node.epilogue.pool else 1
    passes, filled = steps.sum(axis=1), 0
    if isinstance(layout, Spread) and layout.page:      # another one is filled beside
        filled = max(cycles(page_record(layout, page, 0, array, signed=signed, log2_groups=log2),
                            array) for page in range(layout.pages))
        longer = np.maximum(filled + entries - steps, 0)[:, 1:-1].sum(axis=1)
        passes, filled = passes + longer + TURN * (layout.pages - 1), filled * (layout.pages - 2)
    passes = np.maximum(passes, least) * phases
    added = None
    if operand is not None:             # an entry more, and a pass of one step
        added = np.where(rows < 0, 0, operand[np.maximum(rows - share.added, 0)])
        taken, passes = taken + 1, passes + least
    return Work(rows=rows, added=added, page_steps=steps, dense=dense, index=index,
                longest=int(taken.max()), passes=passes, loads=loads(passes, array.clusters),
                least=least,
                fetched=int(taken.sum()) + len(steps) * (
                    filled + head_words(array, signed_in=signed) * groups + 1))


def longest_batch(array: Array, *, single: bool) -> int:
    """Return the entries at which batches are cut: those of one pass where another part can be
    fetched meanwhile, others where the ring ends."""
    return min(array.ring // 2 if single else array.ring - RING_GAP,
               BATCH["steps"].most // (2 * ENTRY_WORDS))
