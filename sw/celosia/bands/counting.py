"""The cycles that a way to run a layer is counted to take, by rules simpler than the machine's."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from celosia.bands.filling import Place, records
from celosia.bands.layouts import Band, Lines
from celosia.bands.spreads import Spread
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import RECORDS, Op
from celosia_spec.isa.fills import accesses, cycles
from celosia_spec.isa.words import TILE_WORDS
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.steps import Ring, stored_name

LAYER = 30
"""Cycles in which a layer's control words are carried out, those of its tables and fills apart."""

BAND = 50
"""Cycles from a band's last step to the next one's first one, or to the end of the layer."""

RECORD = len(RECORDS[Op.FILL].words) + 2
"""Cycles in which the control words of a fill's record are carried out."""

FETCH = 3
"""Cycles in which nothing is fetched, behind a batch's heads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The batches of a part, and what they take.

    index : column index of every column.   added : of each row's residual operand; None without.
    page_steps : int64 (batches, pages), of a pass.   longest : entries of the longest batch.
    passes : int64 (batches,), cycles for a tile.   loads : of all batches for a tile, by how many
    sets of clusters they are dealt to.
    least : cycles that a pass takes at least.   fetched : accesses of main memory that they take.
    """

    rows: np.ndarray
    added: np.ndarray | None
    page_steps: np.ndarray
    dense: np.ndarray
    index: np.ndarray
    longest: int
    passes: np.ndarray
    loads: dict[int, int]
    least: int
    fetched: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """One way for a layer: the bands of each of its parts.

    sets   : of clusters, to which batches are dealt.   splits : clusters of a set, each with its
    own tiles of a band.
    """

    log2_groups: int
    layout: Lines | Spread
    works: list[Work]
    bands: list[list[Band]]
    sets: int = 1
    splits: int = 1

    def spread(self, clusters: int) -> Iterator["Way"]:
        """Yield the ways in which clusters may share it."""
        tiles = max(band.tiles for own in self.bands for band in own)
        for sets in range(clusters, 0, -1):
            if clusters % sets == 0 and (sets == clusters or clusters // sets <= tiles):
                yield replace(self, sets=sets, splits=clusters // sets)


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


def counted(graph: QGraph, node: QNode, way: Way, fill: Callable[[Band], Fill]) -> int:
    """Return the cycles of a layer: those of its bands' passes or, where that is more, of what its
    port has to do meanwhile."""
    written = _written(graph, node, way.layout)
    bands = [(band, work) for work, own in zip(way.works, way.bands, strict=True) for band in own]
    found = LAYER + sum(map(len, way.layout.phases())) + TILE_WORDS * _longest_stretch(way) + fill(
        bands[0][0]).alone
    for at, (band, work) in enumerate(bands):
        words = written(band.stretch.lines)
        others = work.fetched * way.splits + len(work.rows) * (
            words[band.tile + band.tiles] - words[band.tile])
        passes = max(work.loads[way.sets] * -(-band.tiles // way.splits),
                     others + FETCH * -(-len(work.dense) // way.sets))
        found += BAND
        if at + 1 < len(bands):
            after = fill(bands[at + 1][0])
            if bands[at + 1][0].beside:
                passes = max(passes, after.beside(passes, others))
            else:
                passes += after.alone
        found += passes
    return found


def told(way: Way, fill: Callable[[Band], Fill]) -> int:
    """Return the entries of a way's control words, those of its tables apart, about."""
    bands = [band for own in way.bands for band in own]
    return sum(2 + RECORD // ENTRY_WORDS * fill(band).records for band in bands)


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


def fills_of(graph: QGraph, node: QNode, layout: Lines | Spread, log2_groups: int, array: Array,
             apart: dict[str, int]) -> Callable[[Band], Fill]:
    """Return a function that tells what the records of a band's fills take."""
    places = {name: _place(graph, layout, name, node.epilogue.add, apart[name])
              for name in (*node.inputs, node.epilogue.add) if name is not None}

    @cache
    def found(band: Band) -> Fill:
        made = records(graph, node, layout, band, places, array, log2_groups=log2_groups)
        return Fill(sum(cycles(record, array) for record in made),
                    sum(accesses(record, array) for record in made), len(made))

    def of(band: Band) -> Fill:
        # Channels of one map, and bank rows, make no difference.
        stretch = band.stretch if node.joins else replace(band.stretch, channel=0)
        return found(replace(band, stretch=replace(stretch, added=0, row=0)))
    return of


def _place(graph: QGraph, layout: Lines | Spread, name: str, added: str | None,
           stride: int) -> Place:
    """Return a place for what a node reads, in a step in which it goes around its ring's end."""
    view = graph.tensors[name]
    ring = graph.tensors[stored_name(graph.tensors, name)]
    if not isinstance(ring, Ring) or (layout.around and name != added):
        return Place(0, stride)
    return Place(0, stride, ring.lines - view.shape[1] // 2, ring.lines)


def about_fills_of(graph: QGraph, node: QNode, way: Way, array: Array) -> Callable[[Band], Fill]:
    """Return a function that tells what a band's fills take, about."""
    twice = not way.layout.around and any(isinstance(
        graph.tensors[stored_name(graph.tensors, name)], Ring) for name in node.inputs)

    def of(band: Band) -> Fill:
        found = about_fills(way.layout, band, array.fill)
        return Fill(2 * found.cycles, found.accesses, 2 * found.records) if twice else found
    return of


def about_fills(layout: Lines | Spread, band: Band, size: int) -> Fill:
    """Return what a band's fills take, about, where ``size`` elements are filled a cycle."""
    if isinstance(layout, Spread):
        source = layout.source
        words = -(-(source.elements + layout.addends) // size)
        if source.stride != source.positions:       # channel by channel
            words = source.channels * (max(3, -(-source.positions // size)) + 4)
        if layout.page:                             # the first two
            words = min(words, 2 * layout.page // size)
        return Fill(words, words, 1 + (layout.addends > 0))
    grid, stretch = layout.grid, band.stretch
    step, height, width = grid.lines.step, grid.lines.size, grid.columns.size
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
