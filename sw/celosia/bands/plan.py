"""How each layer runs: its row groups, its bands, and the cycles that they are counted to take."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from celosia.bands.filling import records
from celosia.bands.grid import MASKS, Grid
from celosia.bands.layouts import (
    Band,
    Lines,
    Spread,
    Stretch,
    Vector,
    is_depthwise,
    is_vector,
    joined,
    strides,
)
from celosia.bands.tiles import TileTable
from celosia.schedule.steps import batch_steps, row_order, row_words
from celosia_spec.errors import FitError, Need
from celosia_spec.isa import BLOCK
from celosia_spec.qgraph import QGraph, QNode, QTensor
from celosia_spec.stream.array import ENTRY_WORDS, RING_GAP, Array
from celosia_spec.stream.controls import BATCH, RECORDS, Op, head_words
from celosia_spec.stream.fills import accesses, cycles
from celosia_spec.stream.passes import pass_cycles
from celosia_spec.stream.words import TILE_WORDS

LAYER = 30
"""Cycles in which a layer's control words are carried out, those of its tables and fills apart."""

BAND = 50
"""Cycles from a band's last step to the next one's first one, or to the end of the layer."""

RECORD = len(RECORDS[Op.FILL].words) + 2
"""Cycles in which the control words of a fill's record are carried out."""

FETCH = 3
"""Cycles in which nothing is fetched, behind a batch's heads."""

DENSE = 32
"""A batch gets a step for every column, and half as many entries, where that adds no more than one
step in so many."""

GRIDS = ((False, False, False, False), (True, False, False, False), (False, True, False, False),
         (False, False, True, False), (True, False, True, False), (False, False, False, True))
"""Grids that are tried: lines begin on multiples of P', they are filled up with zeros, the grid is
dense, all planes of columns are stored."""

REACH = 16 * BLOCK
"""Column indices that a residual operand's step reaches."""

COUNTED = 6
"""Of all ways of a layer, so many are counted with what their fills take; the others are about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Batches that some bands run.

    rows : of the weights in batch order, -1 for none.   steps : int64 (batches,), of a pass.
    added : column index of each row's residual operand; None without.
    dense : bool (batches,): every column has a step, and entries hold eight mantissas.
    passes : int64 (batches,), cycles for a tile.   bands : what runs them, one after the other.
    longest : entries at which a batch is cut.
    """

    rows: np.ndarray
    added: np.ndarray | None
    steps: np.ndarray
    dense: np.ndarray
    passes: np.ndarray
    bands: tuple[Band, ...]
    longest: int

    @property
    def tiles(self) -> int:
        """Tiles for which each batch runs."""
        return sum(band.tiles for band in self.bands)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """How a node runs.

    log2_groups : of its row groups.   layout : of its input in the banks.   index : column index
    of every column of its weights.   parts : its batches and bands.   cycles : counted.
    least : cycles that a pass takes at least.
    """

    node: QNode
    log2_groups: int
    layout: Lines | Spread
    index: np.ndarray
    parts: tuple[Part, ...]
    cycles: int
    least: int

    @property
    def groups(self) -> int:
        return 1 << self.log2_groups

    @property
    def phases(self) -> int:
        """Passes of a tile: positions of the pooling window."""
        pool = self.node.epilogue.pool
        return math.prod(pool.window) if pool else 1

    @property
    def bands(self) -> list[Band]:
        """All bands in their order."""
        return [band for part in self.parts for band in part.bands]


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The batches of a part, and what they take.

    index : column index of every column.   added : of each row's residual operand; None without.
    longest : entries of the longest batch.
    passes : int64 (batches,), cycles for a tile.   cycles : of all batches for a tile.
    least : cycles that a pass takes at least.   fetched : accesses of main memory that they take.
    """

    rows: np.ndarray
    added: np.ndarray | None
    steps: np.ndarray
    dense: np.ndarray
    index: np.ndarray
    longest: int
    passes: np.ndarray
    cycles: int
    least: int
    fetched: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """One way for a layer: the bands of each of its parts."""

    log2_groups: int
    layout: Lines | Spread
    works: list[Work]
    bands: list[list[Band]]


def plan(graph: QGraph, array: Array) -> list[Layer]:
    """Return how each node of a graph runs: of all ways that the banks and tables hold, the one
    that is counted to take the fewest cycles. FitError where a node has none."""
    apart = strides(graph)
    return [_fastest(graph, node, array, apart) for node in graph.nodes]


def shortages(graph: QGraph, array: Array) -> Iterator[FitError]:
    """Yield everything that leaves nodes of a graph without a way; `plan` raises the first."""
    apart = strides(graph)
    for node in graph.nodes:
        if not any(True for log2 in range(array.groups_max.bit_length())
                   for _ in _ways(graph, node, array, log2, apart)):
            yield from _refusals(graph, node, array, apart)


def _fastest(graph: QGraph, node: QNode, array: Array, apart: dict[str, int]) -> Layer:
    ways = [way for log2 in range(array.groups_max.bit_length())
            for way in _ways(graph, node, array, log2, apart)]
    if not ways:
        raise next(_refusals(graph, node, array, apart))
    ways.sort(key=lambda way: _counted(graph, node, way, lambda band: _about(
        way.layout, band, joined(graph, node), array.fill)))
    found, best = min(((_counted(graph, node, way, _filled(graph, node, way, array, apart)), at)
                       for at, way in enumerate(ways[:COUNTED])))
    return _layer(node, ways[best], array, found)


def _refusals(graph: QGraph, node: QNode, array: Array,
              apart: dict[str, int]) -> Iterator[FitError]:
    """Yield why a node has no way, and what would help: each of the row groups in which the array
    comes nearest to it."""
    source, result = joined(graph, node), graph.tensors[node.output]
    vector, depthwise = is_vector(node, source, result), is_depthwise(node, source, result)
    whole = Grid.of(node, source, result, fill=array.fill, filled=True)
    taps, rows, longest = [], [], []
    for log2 in range(array.groups_max.bit_length()):
        size, least = array.positions(log2), 0 if node.epilogue.add is None else 1 << log2
        if vector:
            spread = _spread(graph, node, apart, size, least)
            taps.append(len(spread.taps()))
            rows.append(spread.rows)
            continue
        channels = 1 << log2 if depthwise else source.shape[0]
        layout = Lines(grid=whole, size=size, span=whole.span(1), channels=channels, addends=least)
        taps.append(len(layout.taps()))
        rows.append(layout.rows)
        longest.append(max(work.longest for work in _works(graph, node, array, log2, layout)))
    name, kind, none = node.name, str(node.kind), True
    if min(taps) > array.taps:
        none = False
        yield FitError(
            name, kind, f"it needs {min(taps)} taps, the array has {array.taps}",
            "give it fewer inputs" if vector else
            "give it fewer channels, a smaller kernel, or a smaller pooling window",
            need=Need("taps", min(taps), array.taps, "taps"))
    if min(rows) > array.bank_rows:
        none = False
        yield FitError(
            name, kind, f"what one line of its outputs reads takes {min(rows)} rows of the banks, "
            f"the array has {array.bank_rows}", "give it fewer channels, or narrower maps",
            need=Need("rows of the banks", min(rows), array.bank_rows, "rows"))
    room = _longest(array, single=False)
    if node.epilogue.pool is not None and longest and min(longest) > room:
        none = False
        yield FitError(
            name, kind, f"it pools, and its longest row takes {min(longest)} entries of the "
            f"weights' ring, which holds {room}", "prune more, or pool in a layer of its own",
            need=Need("weights of a row", min(longest), room, "entries"))
    if none:
        yield FitError(
            name, kind, f"no band of it fits banks of {array.bank_rows} rows, {array.taps} taps "
            f"and {array.tiles // TILE_WORDS} tiles together",
            "give it fewer channels, or narrower maps")


def _layer(node: QNode, way: Way, array: Array, cycles: int) -> Layer:
    pool = node.epilogue.pool
    parts = []
    for work, bands in zip(way.works, way.bands, strict=True):
        single = pool is None and all(band.tiles == 1 for band in bands)
        parts.append(Part(rows=work.rows, added=work.added, steps=work.steps, dense=work.dense,
                          passes=work.passes, bands=tuple(bands),
                          longest=_longest(array, single=single)))
    return Layer(node=node, log2_groups=way.log2_groups, layout=way.layout,
                 index=way.works[0].index, parts=tuple(parts), cycles=cycles,
                 least=way.works[0].least)


def _longest(array: Array, *, single: bool) -> int:
    """Return the entries at which batches are cut: those of one pass where another part can be
    fetched meanwhile, others where the ring ends."""
    return min(array.ring // 2 if single else array.ring - RING_GAP,
               BATCH["steps"].most // (2 * ENTRY_WORDS))


# What is counted

@dataclass(frozen=True)
class Fill:
    """What the fills of a band take: cycles when the port is free, accesses, records."""

    cycles: int
    accesses: int
    records: int

    @property
    def alone(self) -> int:
        """The cycles that they take beside nothing; records are read while others are executed."""
        return RECORD + max(self.cycles, self.records * RECORD)

    def beside(self, passes: int, others: int) -> int:
        """Return the cycles that they take beside passes and so many other accesses. They are last
        in rank: each access waits until nobody else has the port."""
        free = max(passes - others, 1)
        slow = self.cycles + self.accesses * others / free
        left = self.cycles * max(0, 1 - passes / max(slow, 1))
        return max(math.ceil(min(slow, passes) + left), self.records * RECORD)


def _counted(graph: QGraph, node: QNode, way: Way, fill: Callable[[Band], Fill]) -> int:
    """Return the cycles of a layer: those of its bands' passes or, where that is more, of what its
    port has to do meanwhile."""
    written = _written(graph, node, way.layout)
    bands = [(band, work) for work, own in zip(way.works, way.bands, strict=True) for band in own]
    found = LAYER + len(way.layout.taps()) + TILE_WORDS * _longest_stretch(way) + fill(
        bands[0][0]).alone
    for at, (band, work) in enumerate(bands):
        words = written(band.stretch.lines)
        others = work.fetched + len(work.rows) * (words[band.tile + band.tiles] - words[band.tile])
        passes = max(work.cycles * band.tiles, others + FETCH * len(work.steps))
        found += BAND
        if at + 1 < len(bands):
            after = fill(bands[at + 1][0])
            if bands[at + 1][0].beside:
                passes = max(passes, after.beside(passes, others))
            else:
                passes += after.alone
        found += passes
    return found


def _written(graph: QGraph, node: QNode, layout: Lines | Spread) -> Callable[[int], list[int]]:
    """Return a function of a stretch's lines: accesses that a row takes before each of its tiles,
    and before the end, to write its results."""
    wide = node.output == graph.output

    @cache
    def found(lines: int) -> list[int]:
        ends = np.cumsum(layout.tiles(lines).written.sum(axis=1)) << wide
        begins = np.concatenate([[0], ends[:-1]])
        words = -(-ends // ENTRY_WORDS) - begins // ENTRY_WORDS
        return [0, *np.cumsum(words).tolist()]
    return found


def _filled(graph: QGraph, node: QNode, way: Way, array: Array,
            apart: dict[str, int]) -> Callable[[Band], Fill]:
    """Return a function that tells what the records of a band's fills take."""
    places = {name: (0, apart[name]) for name in (*node.inputs, node.epilogue.add)
              if name is not None}

    @cache
    def found(band: Band) -> Fill:
        made = records(graph, node, way.layout, band, places, array,
                       log2_groups=way.log2_groups)
        return Fill(sum(cycles(record, array) for record in made),
                    sum(accesses(record, array) for record in made), len(made))

    def of(band: Band) -> Fill:
        # Channels of one map, and bank rows, make no difference.
        stretch = band.stretch if node.joins else replace(band.stretch, channel=0)
        return found(replace(band, stretch=replace(stretch, added=0, row=0)))
    return of


def _about(layout: Lines | Spread, band: Band, source: QTensor, size: int) -> Fill:
    """Return what a band's fills take, about, where ``size`` elements are filled a cycle."""
    if isinstance(layout, Spread):
        words = -(-(layout.source.elements + layout.addends) // size)
        return Fill(words, words, 1 + (layout.addends > 0))
    grid, stretch = layout.grid, band.stretch
    step, (height, width) = grid.lines.step, source.shape[1:]
    first, planes = stretch.line + grid.lines.shifts[0], len(grid.lines.planes)
    inside = max(0, min((first + band.end) * step, height) - max((first + band.begin) * step, 0))
    lines = inside * planes // step
    outside = (band.end - band.begin) * planes - lines
    words = -(-width // size) if grid.columns.step <= 2 else width
    count = planes * ((inside > 0) + (outside > 0) * (1 if grid.columns.step == 1 else 2))
    if step == grid.columns.step == 1 and grid.pitch == width:
        takes = (lines + outside) * width // size + 5 * count
    else:
        takes = (lines + outside) * (max(words, 3) + 4) + count
    if grid.filled:
        gaps = planes * len(grid.columns.planes)
        takes += ((band.end - band.begin) * 7 + 2) * gaps
        count += gaps * 2
    takes, words = stretch.channels * takes, stretch.channels * lines * words
    if layout.addends:
        added = -(-grid.columns.count // size) * (band.end - band.begin) * stretch.addends
        takes, words, count = takes + added + 5 * stretch.addends, words + added, count + 1
    return Fill(takes + 8 * count, words, count)


def _longest_stretch(way: Way) -> int:
    """Return the tiles of a layer's longest stretch, about what its table holds."""
    return max(len(way.layout.tiles(lines)) for lines in {
        band.stretch.lines for bands in way.bands for band in bands})


# What is possible

def _ways(graph: QGraph, node: QNode, array: Array, log2: int,
          apart: dict[str, int]) -> Iterator[Way]:
    source, result = joined(graph, node), graph.tensors[node.output]
    size, depthwise = array.positions(log2), is_depthwise(node, source, result)
    adds = node.epilogue.add is not None
    if is_vector(node, source, result):
        for addends in _addends(result, apart[node.epilogue.add or node.input], log2, adds=adds):
            spread = _spread(graph, node, apart, size, addends)
            if spread.rows <= array.bank_rows and len(spread.taps()) <= array.taps:
                yield _spread_way(graph, node, array, log2, spread)
                break
        if not depthwise or apart[node.input] == 1:
            return
    works: dict[tuple[int, int], list[Work]] = {}
    seen = set()
    masked = any(mask for _, mask in Grid.of(node, source, result, fill=array.fill).taps(1))
    for multiple, filled, dense, every in GRIDS:
        if dense and adds:              # what is added lies as the outputs do, without gaps
            continue
        grid = Grid.of(node, source, result, fill=array.fill, multiple=size if multiple else 1,
                       filled=filled, dense=dense, whole=every)
        # Without masks nothing has to be filled.
        key = replace(grid, filled=filled and masked)
        if key in seen:
            continue
        seen.add(key)
        for channels, addends in _held(source, result, log2, depthwise=depthwise, adds=adds):
            for layout, lines in _layouts(grid, array, size, channels, addends):
                held = channels, addends
                if held not in works:
                    works[held] = _works(graph, node, array, log2, layout)
                for bands in _bands(layout, array, lines, works[held],
                                    _shares(graph, node, layout),
                                    pooled=node.epilogue.pool is not None):
                    yield Way(log2_groups=log2, layout=layout, works=works[held], bands=bands)


def _held(source: QTensor, result: QTensor, log2: int, *, depthwise: bool,
          adds: bool) -> list[tuple[int, int]]:
    """Return how many channels of the input, and of a residual operand, a stretch may hold."""
    if depthwise:
        return [(count, count * adds) for count in _channels(source.shape[0], 1 << log2)
                if not adds or count <= REACH]
    return [(source.shape[0], addends) for addends in _addends(result, 1, log2, adds=adds)]


def _addends(result: QTensor, stride: int, log2: int, *, adds: bool) -> list[int]:
    """Return how many channels of a residual operand a stretch may have, the most first: what one
    step reaches, and fewer where the banks do not hold those."""
    if not adds:
        return [0]
    found = [min(result.shape[0], REACH // stride)]
    while found[-1] > 1 << log2:
        found.append(max(found[-1] // 2, 1 << log2))
    return found


def _spread(graph: QGraph, node: QNode, apart: dict[str, int], size: int, addends: int) -> Spread:
    """Return the layout of a layer that looks at its whole input."""
    count, height, width = graph.tensors[node.input].shape
    source = Vector(channels=count, positions=height * width, size=size, stride=apart[node.input])
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
    return Way(log2_groups=log2, layout=spread, works=_works(graph, node, array, log2, spread),
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
        taps = layout.taps()
        if (len(taps) <= array.taps and max(mask for *_, mask in taps) <= MASKS
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
    if max(work.longest for work in works) > _longest(array, single=False):
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
    found: list[list[Band]] = []
    for part in parts:
        found.append([])
        for own in part:
            stretch = replace(own, row=row)
            lines = _lines(layout, own.lines)
            tile = end = 0
            while tile < len(lines):
                count = min(next(sizes, most), len(lines) - tile)
                last = lines[tile + count - 1][1] + reach + 1
                rows = layout.rows_of(lines[tile][0], last)
                if rows[1] - rows[0] > array.bank_rows:
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

def _works(graph: QGraph, node: QNode, array: Array, log2: int,
           layout: Lines | Spread) -> list[Work]:
    """Return the batches of each part."""
    index = (layout.source.index() if isinstance(layout, Spread) else
             layout.index(joined(graph, node).shape[0], math.prod(node.geometry.kernel)))
    operand = layout.operand_index() if layout.addends else None
    return [_work(graph, node, array, log2, index, operand, share)
            for share in _shares(graph, node, layout)]


def _work(graph: QGraph, node: QNode, array: Array, log2: int, index: np.ndarray,
          operand: np.ndarray | None, share: Share) -> Work:
    """Return the batches of a share's rows."""
    groups, matrix, inside = 1 << log2, node.matrix, share.rows
    signed = graph.tensors[node.input].signed
    rows = row_order(matrix, groups, keep=False)
    if inside is not None:
        order = row_order(matrix[inside], groups, keep=False)
        rows = np.where(order < 0, -1, inside[order])
    words = row_words(matrix.indptr, index[matrix.indices])
    steps = batch_steps(words, rows, groups)
    columns = int(index.max()) + 1
    dense = columns * (DENSE - 1) <= steps * DENSE
    steps = np.where(dense, columns, steps)
    taken = -(-steps * groups // np.where(dense, 2 * ENTRY_WORDS, ENTRY_WORDS))
    least = pass_cycles(array, log2_groups=log2, signed_in=signed,
                        wide=node.output == graph.output, residual=operand is not None)
    phases = math.prod(node.epilogue.pool.window) if node.epilogue.pool else 1
    passes = np.maximum(steps, least) * phases
    added = None
    if operand is not None:             # an entry more, and a pass of one step
        added = np.where(rows < 0, 0, operand[np.maximum(rows - share.added, 0)])
        taken, passes = taken + 1, passes + least
    return Work(rows=rows, added=added, steps=steps, dense=dense, index=index,
                longest=int(taken.max()), passes=passes, cycles=int(passes.sum()), least=least,
                fetched=int(taken.sum()) + len(steps) * (head_words(signed_in=signed) * groups + 1))
