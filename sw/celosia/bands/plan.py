"""How each layer runs: its row groups, its bands, and the cycles that they are counted to take."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from celosia.bands.counting import (
    Way,
    about_course,
    counted,
    course,
    entries,
    filled_twice,
    fills_of,
)
from celosia.bands.dealing import deal
from celosia.bands.grid import Grid
from celosia.bands.layouts import Band, Lines, is_depthwise, is_vector, joined, strides, tap_words
from celosia.bands.spreads import Spread
from celosia.bands.ways import held_words, most_held, paged_way, spread_of, ways_of
from celosia.bands.works import longest_batch, works_of
from celosia_spec.errors import FitError, Need, Scarce
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.words import TILE_WORDS
from celosia_spec.qgraph import QGraph, QNode, as_made

COUNTED = 6
"""Of all ways of a layer, so many are counted with what their fills take; the others are about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Batches that some bands run.

    rows : of the weights in batch order, -1 for none.
    page_steps : int64 (batches, pages), of a pass in each page of the input; most have one.
    added : column index of each row's residual operand; None without.
    dense : bool (batches,): every column has a step, and entries hold eight mantissas.
    passes : int64 (batches,), cycles for a tile.   bands : what runs them, one after the other.
    longest : entries at which a batch is cut.
    sets : int64 (batches,), the set of clusters that runs it.
    """

    rows: np.ndarray
    added: np.ndarray | None
    page_steps: np.ndarray
    dense: np.ndarray
    passes: np.ndarray
    bands: tuple[Band, ...]
    longest: int
    sets: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """Steps of a pass of each batch, int64 (batches,)."""
        found: np.ndarray = self.page_steps.sum(axis=1)
        return found

    @property
    def tiles(self) -> int:
        """Tiles for which each batch runs."""
        return sum(band.tiles for band in self.bands)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """How a node runs.

    log2_groups : of its row groups.   layout : of its input in the banks.   index : column index
    of every column of its weights.   parts : its batches and bands.   cycles : counted.
    entries : counted, whole.   least : cycles that a pass takes at least.   sets : of clusters, to
    which batches are dealt.   splits : clusters of a set, each with its own tiles of a band.
    """

    node: QNode
    log2_groups: int
    layout: Lines | Spread
    index: np.ndarray
    parts: tuple[Part, ...]
    cycles: int
    entries: int
    least: int
    sets: int = 1
    splits: int = 1

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

    def share(self, band: Band, cluster: int) -> range:
        """Return the tiles of a band that a cluster computes."""
        own = cluster % self.splits
        begin, end = (-(-band.tiles * k // self.splits) for k in (own, own + 1))
        return range(band.tile + min(begin, band.tiles - 1), band.tile + end)

    def batches(self, part: Part, cluster: int) -> list[int]:
        """Return the numbers of a part's batches that a cluster runs."""
        found: list[int] = np.flatnonzero(part.sets == cluster // self.splits).tolist()
        return found


class _Counted(NamedTuple):
    """A way, as clusters share it, about.

    cycles : that it takes.   entries : as of `counting.entries`.
    """

    cycles: int
    entries: int
    way: Way
    sets: int
    splits: int


class Plan:
    """How each node of a graph runs: of all ways that the banks and tables hold, the one that is
    counted to take the fewest cycles. FitError where a node has none."""

    def __init__(self, graph: QGraph, array: Array) -> None:
        self.graph, self.array, self.apart = graph, array, strides(graph)
        self._ways = [self._counted(node) for node in graph.nodes]

    def layers(self, *, copied: bool = False) -> list[Layer]:
        """Return them; where they are ``copied`` from flash, the cycles in which their entries are
        count, too."""
        return [self._fastest(node, ways, copied=copied)
                for node, ways in zip(self.graph.nodes, self._ways, strict=True)]

    def _counted(self, node: QNode) -> list[_Counted]:
        """Return all ways of a node, about."""
        graph, array, found = self.graph, self.array, []
        for log2 in range(array.groups_max.bit_length()):
            filled = array.fill if array.positions(log2) >= array.fill else array.unit
            for way in ways_of(graph, node, array, log2, self.apart):
                about = about_course(way.banding, filled, wide=node.output == graph.output,
                                     twice=filled_twice(graph, node, way.layout))
                words = entries(way, about)
                found += [_Counted(counted(way, about, *spread), words, way, *spread)
                          for spread in way.spreads(array.clusters)]
        if not found:
            raise next(_refusals(graph, node, array, self.apart))
        return found

    def _fastest(self, node: QNode, ways: Sequence[_Counted], *, copied: bool) -> Layer:
        graph, array = self.graph, self.array
        entry = ENTRY_WORDS * array.flash if copied else 0
        order = sorted(ways, key=lambda about: about.cycles + entry * about.entries)
        costs, fills = [], {}
        for at, about in enumerate(order[:COUNTED]):
            way = about.way
            laid = id(way.layout), way.log2_groups      # several have the same one
            if laid not in fills:
                fills[laid] = fills_of(graph, node, way.layout, way.log2_groups, array, self.apart)
            exact = course(way.banding, fills[laid], wide=node.output == graph.output)
            cycles = counted(way, exact, about.sets, about.splits)
            words = entries(way, exact)
            costs.append((cycles + entry * words, at, cycles, words))
        _, at, cycles, words = min(costs)
        best = order[at]
        return _layer(node, replace(best.way, sets=best.sets, splits=best.splits), array, cycles,
                      words)


def shortages(graph: QGraph, array: Array) -> Iterator[FitError]:
    """Yield everything that leaves nodes of a graph without a way; `Plan` raises the first."""
    apart = strides(graph)
    for node in graph.nodes:
        if not any(True for log2 in range(array.groups_max.bit_length())
                   for _ in ways_of(graph, node, array, log2, apart)):
            yield from _refusals(graph, node, array, apart)


def _refusals(graph: QGraph, node: QNode, array: Array,
              apart: dict[str, int]) -> Iterator[FitError]:
    """Yield why a node has no way, and what would help: each of the row groups in which the array
    comes nearest to it."""
    source, result = joined(graph, node), as_made(graph.tensors, node)
    vector, depthwise = is_vector(node, source, result), is_depthwise(node, source, result)
    whole = Grid.of(node, source, result, fill=array.unit, filled=True)
    taps, rows, longest, held = [], [], [], []
    for log2 in range(array.groups_max.bit_length()):
        size, least = array.positions(log2), 0 if node.epilogue.add is None else 1 << log2
        channels = 1 << log2 if depthwise else source.shape[0]
        if vector:
            spread = spread_of(graph, node, apart, size, channels, least)
            taps.append(tap_words(spread.phases()))
            rows.append(spread.rows)
            if (way := paged_way(graph, node, array, log2, apart)) is not None:
                held.append(held_words(graph, node, array, way))
            continue
        layout = Lines(grid=whole, size=size, span=whole.span(1), channels=channels, addends=least)
        taps.append(tap_words(layout.phases()))
        rows.append(layout.rows)
        longest.append(max(work.longest for work in works_of(graph, node, array, log2, layout)))
    name, kind, none = node.name, str(node.kind), True
    if held:
        yield FitError(
            name, kind, f"a row of it takes {min(held)} words of the controls' ring, which holds "
            f"{most_held(array)}", "give it fewer inputs",
            need=Need(Scarce.ROW_CONTROLS, min(held), most_held(array), "words"))
        return
    if min(taps) > array.taps:
        none = False
        yield FitError(
            name, kind, f"it needs {min(taps)} taps, the array has {array.taps}",
            "give it fewer inputs" if vector else
            "give it fewer channels, a smaller kernel, or a smaller pooling window",
            need=Need(Scarce.TAPS, min(taps), array.taps, "taps"))
    if min(rows) > array.bank_rows:
        none = False
        yield FitError(
            name, kind, f"what one line of its outputs reads takes {min(rows)} rows of the banks, "
            f"the array has {array.bank_rows}", "give it fewer channels, or narrower maps",
            need=Need(Scarce.BANK_ROWS, min(rows), array.bank_rows, "rows"))
    room = longest_batch(array, single=False)
    if node.epilogue.pool is not None and longest and min(longest) > room:
        none = False
        yield FitError(
            name, kind, f"it pools, and its longest row takes {min(longest)} entries of the "
            f"weights' ring, which holds {room}", "prune more, or pool in a layer of its own",
            need=Need(Scarce.ROW_WEIGHTS, min(longest), room, "entries"))
    if none:
        yield FitError(
            name, kind, f"no band of it fits banks of {array.bank_rows} rows, {array.taps} taps "
            f"and {array.tiles // TILE_WORDS} tiles together",
            "give it fewer channels, or narrower maps")


def _layer(node: QNode, way: Way, array: Array, cycles: int, words: int) -> Layer:
    pool = node.epilogue.pool
    parts = []
    for work, bands in zip(way.works, way.banding.parts, strict=True):
        single = pool is None and all(band.tiles == 1 for band in bands)
        # Batches of a set stand behind each other.
        sets = deal(work.passes, way.sets)
        order = np.argsort(sets, kind="stable")
        by_batch = work.rows.reshape(len(order), -1)[order]
        added = None if work.added is None else work.added.reshape(by_batch.shape)[order].ravel()
        parts.append(Part(rows=by_batch.ravel(), added=added, page_steps=work.page_steps[order],
                          dense=work.dense[order], passes=work.passes[order], sets=sets[order],
                          bands=tuple(bands), longest=longest_batch(array, single=single)))
    return Layer(node=node, log2_groups=way.log2_groups, layout=way.layout,
                 index=way.works[0].index, parts=tuple(parts), cycles=cycles, entries=words,
                 least=way.works[0].least, sets=way.sets, splits=way.splits)
