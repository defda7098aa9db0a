"""The cycles that a way to run a layer is counted to take, by rules simpler than the machine's."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import zip_longest

import numpy as np

from celosia.bands.banding import Banding
from celosia.bands.dealing import loads
from celosia.bands.filling import Place, records
from celosia.bands.layouts import KEPT, Band, Lines, Stretch
from celosia.bands.spreads import Spread
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import RECORDS, Op
from celosia_spec.isa.fills import accesses, cycles
from celosia_spec.isa.words import TILE_WORDS
from celosia_spec.qgraph import QGraph, QNode, moves_channels
from celosia_spec.steps import Ring, stored_name

LAYER = 30
"""Cycles in which a layer's control words are carried out, those of its tables and fills apart."""

BAND = 50
"""Cycles from a band's last step to the next one's first one, or to the end of the layer."""

RECORD = len(RECORDS[Op.FILL].words) + 2
"""Cycles in which the control words of a fill's record are carried out."""

BAND_ENTRIES, CHUNKS = 2, 3
"""Entries of a band's command, where it begins one; chunks of a band of several clusters, each."""

@dataclass(frozen=True, kw_only=True)
class LineCost:
    """Of a fill's line the fewest accesses that count, and cycles without one from it to the next
    one, or to the next channel's."""

    least: int
    turn: int
    channel: int


LINE_COSTS = {2: LineCost(least=3, turn=4, channel=5),
              4: LineCost(least=3, turn=4, channel=5),
              8: LineCost(least=1, turn=1, channel=1)}
"""To the elements that are filled a cycle."""

FETCH = 3
"""Cycles in which nothing is fetched, behind a batch's heads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The batches of a part, and what they take.

    groups : rows of a batch.   rows : in batch order, -1 for none.
    added : of each row's residual operand; None without.   index : column index of every column.
    page_steps : int64 (batches, pages), of a pass.   dense : bool (batches,).
    entries : int64 (batches,).   passes : int64 (batches,), cycles for a tile.
    least : cycles that a pass takes at least.   beside : accesses of main memory that a batch takes
    beside its entries.   clusters : of the array.   two_ports : likewise.
    """

    groups: int
    rows: np.ndarray
    added: np.ndarray | None
    page_steps: np.ndarray
    dense: np.ndarray
    index: np.ndarray
    entries: np.ndarray
    passes: np.ndarray
    least: int
    beside: int
    clusters: int
    two_ports: bool

    def some(self, begin: int, end: int) -> "Work":
        """Return the batches from one until another."""
        rows = slice(begin * self.groups, end * self.groups)
        return replace(
            self, rows=self.rows[rows], added=None if self.added is None else self.added[rows],
            page_steps=self.page_steps[begin:end], dense=self.dense[begin:end],
            entries=self.entries[begin:end], passes=self.passes[begin:end])

    @cached_property
    def longest(self) -> int:
        """Entries of the longest batch."""
        return int(self.entries.max())

    @cached_property
    def fetched(self) -> int:
        """Accesses of main memory that they take."""
        return int(self.entries.sum()) + self.beside * len(self.entries)

    @cached_property
    def loads(self) -> dict[int, int]:
        """Cycles of all batches for a tile, by how many sets of clusters they are dealt to."""
        return loads(self.passes, self.clusters)


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

    def beside(self, passes: int, others: int, *, shared: bool) -> int:
        """Return the cycles that they take beside passes and so many other accesses. Where the port
        is shared, they are last in rank: each access waits until nobody else has it. Else they only
        begin late: their control words come behind the band's first batch."""
        if not shared:
            return RECORD + max(self.cycles, self.records * RECORD)
        free = max(passes - others, 1)
        slow = self.cycles + self.accesses * others / free
        left = self.cycles * max(0, 1 - passes / max(slow, 1))
        return max(math.ceil(min(slow, passes) + left), self.records * RECORD)


@dataclass(frozen=True)
class Turn:
    """A band as it is counted.

    part : its number.   tiles : how many.   words : accesses in which a row's results are written.
    after : what the next band's fills take; None of the last one.   beside : they are beside it.
    """

    part: int
    tiles: int
    words: int
    after: Fill | None
    beside: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """The bands of a layer as they are counted, whatever its weights are.

    tables : words of its taps and tiles.   first : what the first band's fills take.
    turns : equal bands once, and how many they are.
    """

    tables: int
    first: Fill
    turns: tuple[tuple[Turn, int], ...]

    @cached_property
    def records(self) -> int:
        """Records of its fills."""
        return self.first.records + sum(
            count * turn.after.records for turn, count in self.turns if turn.after)

    @cached_property
    def bands(self) -> int:
        """How many there are."""
        return sum(count for _, count in self.turns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """One way for a layer: the batches and the bands of each of its parts.

    sets   : of clusters, to which batches are dealt.   splits : clusters of a set, each with its
    own tiles of a band.
    """

    log2_groups: int
    works: list[Work]
    banding: Banding
    sets: int = 1
    splits: int = 1

    @property
    def layout(self) -> Lines | Spread:
        return self.banding.layout

    def spreads(self, clusters: int) -> Iterator[tuple[int, int]]:
        """Yield `sets` and `splits` with which clusters may share it; where pages are turned, the
        first one runs all batches."""
        if isinstance(self.layout, Spread) and self.layout.page:
            yield 1, 1
            return
        for sets in range(clusters, 0, -1):
            if clusters % sets == 0 and (sets == clusters
                                         or clusters // sets <= self.banding.tiles):
                yield sets, clusters // sets


def course(banding: Banding, fill: Callable[[Band], Fill], *, wide: bool) -> Course:
    """Return the course of bands.   wide : sums of two elements are stored."""
    layout = banding.layout
    bands = [(part, band) for part, own in enumerate(banding.parts) for band in own]
    words = {lines: _written(layout, lines, wide=wide)
             for lines in {band.stretch.lines for _, band in bands}}
    turns: Counter[Turn] = Counter()
    for (part, band), after in zip_longest(bands, [band for _, band in bands[1:]]):
        own = words[band.stretch.lines]
        turns[Turn(part, band.tiles, own[band.tile + band.tiles] - own[band.tile],
                   fill(after) if after else None, bool(after and after.beside))] += 1
    return Course(
        tables=sum(map(len, layout.phases())) + TILE_WORDS * max(
            len(layout.tiles(lines)) for lines in words),
        first=fill(bands[0][1]), turns=tuple(turns.items()))


@lru_cache(maxsize=16 * KEPT)
def about_course(banding: Banding, size: int, *, twice: bool, wide: bool) -> Course:
    """Return a `course`, about, where ``size`` elements are filled a cycle.   twice :
    `filled_twice`."""
    return course(banding, lambda band: _about(banding.layout, band, size, twice=twice), wide=wide)


def counted(way: Way, course: Course, sets: int, splits: int) -> int:
    """Return the cycles of a layer: those of its bands' passes or, where that is more, of what its
    port has to do meanwhile.

    sets, splits : how clusters share the way (`Way.spreads`).
    """
    clusters = way.works[0].clusters
    works = []
    for work in way.works:
        # A fetcher of several has an access in two cycles at most.
        alone = work.fetched if clusters == 1 else -(-2 * work.fetched // sets)
        works.append((work.loads[sets], alone, work.fetched * splits, len(work.rows),
                      FETCH * -(-len(work.dense) // sets)))
    return _cycles(course, tuple(works), splits, clusters=clusters,
                   shared=not way.works[0].two_ports)


def entries(way: Way, course: Course) -> int:
    """Return the entries that a layer takes, and its chunks, about: each cluster has bands and
    chunks of its own."""
    clusters = way.works[0].clusters
    band = BAND_ENTRIES + (CHUNKS if clusters > 1 else 0)
    return (sum(int(work.entries.sum()) for work in way.works) + course.tables // ENTRY_WORDS
            + RECORD // ENTRY_WORDS * course.records + band * clusters * course.bands)


@lru_cache(maxsize=1 << 14)     # layers of a shape have the same ones
def _cycles(course: Course, works: tuple[tuple[int, int, int, int, int], ...], splits: int, *,
            clusters: int, shared: bool) -> int:
    """Return what `counted` does.

    works : of each part the load of its batches, cycles in which one fetcher has its entries,
    accesses of all for them, rows, and cycles in which nothing is fetched behind heads.
    clusters : of the array; several have two accesses in a cycle.   shared : fills have no port of
    their own.
    """
    found = LAYER + course.tables + course.first.alone
    for turn, count in course.turns:
        load, alone, fetched, rows, fetch = works[turn.part]
        others = fetched + rows * turn.words
        if clusters > 1:
            others = max(alone, -(-others // 2))
        passes = max(load * -(-turn.tiles // splits), others + fetch)
        if turn.after is None:
            after = 0
        elif turn.beside:
            after = max(0, turn.after.beside(passes, others, shared=shared) - passes)
        else:
            after = turn.after.alone
        found += count * (BAND + passes + after)
    return found


def _written(layout: Lines | Spread, lines: int, *, wide: bool) -> list[int]:
    """Return the accesses that a row of a stretch takes before each of its tiles, and before the
    end, to write its results."""
    ends = np.cumsum(layout.tiles(lines).written.sum(axis=1)) << wide
    begins = np.concatenate([[0], ends[:-1]])
    words = -(-ends // ENTRY_WORDS) - begins // ENTRY_WORDS
    return [0, *np.cumsum(words).tolist()]


def fills_of(graph: QGraph, node: QNode, layout: Lines | Spread, log2_groups: int, array: Array,
             apart: dict[str, int]) -> Callable[[Band], Fill]:
    """Return a function that tells what the records of a band's fills take."""
    places = {name: _place(graph, layout, name, node.epilogue.add, apart[name])
              for name in (*node.inputs, node.epilogue.add) if name is not None}

    # Channels of one map make no difference, nor do bank rows.
    apart_channels = node.joins or moves_channels(node.geometry.border)

    @cache
    def found(channel: int, *what: int) -> Fill:
        line, lines, channels, addends, begin, end = what
        band = Band(stretch=Stretch(line=line, lines=lines, channel=channel, channels=channels,
                                    addends=addends),
                    tile=0, tiles=0, begin=begin, end=end, beside=False)
        made = records(graph, node, layout, band, places, array, log2_groups=log2_groups)
        return Fill(sum(cycles(record, array) for record in made),
                    sum(accesses(record, array) for record in made), len(made))

    def of(band: Band) -> Fill:
        own = band.stretch
        return found(own.channel if apart_channels else 0, own.line, own.lines, own.channels,
                     own.addends, band.begin, band.end)
    return of


def _place(graph: QGraph, layout: Lines | Spread, name: str, added: str | None,
           stride: int) -> Place:
    """Return a place for what a node reads, in a step in which it goes around its ring's end."""
    view = graph.tensors[name]
    ring = graph.tensors[stored_name(graph.tensors, name)]
    if not isinstance(ring, Ring) or (layout.around and name != added):
        return Place(0, stride)
    return Place(0, stride, ring.lines - view.shape[1] // 2, ring.lines)


def filled_twice(graph: QGraph, node: QNode, layout: Lines | Spread) -> bool:
    """Whether what a node reads goes around its ring's end, and is filled in two pieces."""
    return not layout.around and any(isinstance(
        graph.tensors[stored_name(graph.tensors, name)], Ring) for name in node.inputs)


def _about(layout: Lines | Spread, band: Band, size: int, *, twice: bool) -> Fill:
    found = about_fills(layout, band, size)
    return Fill(2 * found.cycles, found.accesses, 2 * found.records) if twice else found


def about_fills(layout: Lines | Spread, band: Band, size: int) -> Fill:
    """Return what a band's fills take, about, where ``size`` elements are filled a cycle."""
    line = LINE_COSTS[size]
    if isinstance(layout, Spread):
        source = layout.source
        words = -(-(source.elements + layout.addends) // size)
        if source.stride != source.positions:       # channel by channel
            words = source.channels * (max(line.least, -(-source.positions // size)) + line.turn)
        if layout.page:                             # the first two
            words = min(words, 2 * layout.page // size)
        return Fill(words, words, 1 + (layout.addends > 0))
    grid, stretch = layout.grid, band.stretch
    step, height, width = grid.lines.step, grid.lines.size, grid.columns.stored
    first, planes = stretch.line + grid.lines.shifts[0], len(grid.lines.planes)
    inside = max(0, min((first + band.end) * step, height) - max((first + band.begin) * step, 0))
    lines = inside * planes // step
    outside = (band.end - band.begin) * planes - lines
    of_planes = min(size, ENTRY_WORDS)
    words = width if grid.columns.step > 2 else -(-width // (
        size if grid.columns.step == 1 else of_planes))
    count = planes * ((inside > 0) + (outside > 0) * (1 if grid.columns.step == 1 else 2))
    if step == grid.columns.step == 1 and grid.pitch == width:
        takes = (lines + outside) * width // size + line.channel * count
    else:
        takes = ((lines + outside) * (max(words, line.least) + line.turn)
                 + (line.channel - line.turn) * count)
    if grid.filled:
        gaps = planes * len(grid.columns.planes)
        takes += ((band.end - band.begin) * (line.least + line.turn) + 2) * gaps
        count += gaps * 2
    beside = grid.columns.size - width
    takes += (line.least + line.turn) * beside * lines
    words, count = words + beside, count + beside * planes
    takes, words = stretch.channels * takes, stretch.channels * lines * words
    if layout.addends:
        added = -(-grid.columns.count // size) * (band.end - band.begin) * stretch.addends
        takes, words, count = (
            takes + added + line.channel * stretch.addends, words + added, count + 1)
    return Fill(takes + 8 * count, words, count)
