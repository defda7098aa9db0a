"""Layers in parts: batches, with the control words around them, that come to main memory together
where all of a layer's do not fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np

from celosia.bands.batches import Batches, batches
from celosia.bands.counting import BAND, fills_of
from celosia.bands.dealing import deal
from celosia.bands.layouts import Band, strides
from celosia.bands.pages import beside_words, dense_steps
from celosia.bands.plan import Layer, Part
from celosia.bands.tiles import TileTable
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import RECORDS, Op
from celosia_spec.isa.words import TILE_WORDS
from celosia_spec.qgraph import QGraph

_ENDS = 3
"""Entries at the end of a part: what copies another one, what waits for the banks, what closes the
layer."""

Piece = tuple[int, int, int]
"""Of a layer's parts one by its number, its first batch, and the one behind its last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parted:
    """A layer in sections, each of which has its entries in the order in which they are read.

    layer  : with a part for each piece, and the cycles that it takes then.   made : their batches.
    begins : the numbers of the parts with which sections begin.
    resident : sections that are in main memory from the start on, 1 or 0; the others are copied.
    entries, shares : of each section: its entries, at most; its share of the layer's cycles.
    chunks : in which all clusters read its entries, at most.
    room   : entries of a place in main memory.   places : how many there are, one behind the other;
    a section comes to the one in which the last one was read longest ago.
    """

    layer: Layer
    made: list[Batches]
    begins: tuple[int, ...]
    resident: int
    entries: tuple[int, ...]
    shares: tuple[float, ...]
    chunks: int
    room: int
    places: int

    @property
    def copied(self) -> range:
        """The sections that are copied."""
        return range(self.resident, len(self.begins))

    @property
    def held(self) -> int:
        """Entries of what is not copied."""
        return sum(self.entries[:self.resident])


class Parting:
    """Part a layer as rooms ask for it.

    made : its batches.   begin : entries of all orders before its first band.
    once : what is added can be filled once only, as sums take its words.
    """

    def __init__(self, graph: QGraph, layer: Layer, made: Sequence[Batches], array: Array,
                 period: int, begin: int, *, once: bool) -> None:
        self.layer, self.made, self.array = *_denser(graph, layer, made, array), array
        self._fill = fills_of(graph, layer.node, layer.layout, layer.log2_groups, array,
                              strides(graph))
        fill = _entries(Op.FILL)
        self._fills = [[period * fill * self._fill(band).records for band in part.bands]
                       for part in layer.parts]
        # Of several clusters all but one read that pages are turned, once for each batch.
        beside = beside_words(layer.layout) if array.clusters > 1 else []
        self._turned = -(-len(beside) // ENTRY_WORDS)
        self._band = period * array.clusters * (_entries(Op.BAND) + 1) + self._turned
        self._again = [self._repeated(part) for part in layer.parts]
        self._whole = [once and again is None for again in self._again]
        self._begin = begin
        self._known: dict[tuple[int, int, int], Parted | None] = {}

    @property
    def least(self) -> int:
        """Entries of the smallest place that holds each of its sections."""
        found = [self._piece(at, first=batch == 0) + size + (
            self._waiting(at, first=batch == 0) if at or batch else self._begin)
                 for at, made in enumerate(self.made)
                 for batch, size in enumerate([sum(made.sizes)] if self._whole[at] else made.sizes)]
        return max(found) + _ENDS

    def parted(self, room: int, places: int, resident: int = 0) -> Parted | None:
        """Return the layer for places of so many entries, and so many that are resident; None where
        one does not hold a batch."""
        key = room, places, resident
        if key not in self._known:
            sections = self._sections(room, resident)
            self._known[key] = sections and self._made(*sections, room, places, bool(resident))
        return self._known[key]

    def _sections(self, room: int, resident: int) -> tuple[list[list[Piece]], list[int]] | None:
        """Return sections as large as places allow, and their entries."""
        sections: list[list[Piece]] = [[]]
        used, most = [self._begin + _ENDS], resident or room
        for at, made in enumerate(self.made):
            begun = 0
            for batch, size in enumerate(made.sizes):
                opens = self._piece(at, first=not batch)
                needs = size + (opens if batch == begun else 0)
                if used[-1] + needs > most:
                    if batch > begun:
                        sections[-1].append((at, begun, batch))
                    if batch and self._whole[at]:
                        return None
                    opens += self._waiting(at, first=not batch)
                    begun, needs, most = batch, size + opens, room
                    if not sections[-1] or _ENDS + needs > room:
                        return None
                    sections.append([])
                    used.append(_ENDS)
                used[-1] += needs
            sections[-1].append((at, begun, len(made.sizes)))
        return sections, used

    def _piece(self, at: int, *, first: bool) -> int:
        """Return the entries of control words with some batches of a part, at most: of its bands
        and their fills, and of the first fills of whatever follows."""
        fills, again = self._fills[at], self._again[at]
        follows = max([0 if again else fills[0], *(own[0] for own in self._fills[at + 1:at + 2])])
        if again and not first:
            return self._band * len(again) + follows
        return self._band * len(fills) + sum(fills[1:]) + follows

    def _waiting(self, at: int, *, first: bool) -> int:
        """Return the entries of fills with which a section begins whose first batches are some of a
        part, at most: beside the band before there may have been no room for them."""
        return 0 if self._again[at] and not first else self._fills[at][0]

    def _repeated(self, part: Part) -> tuple[Band, ...] | None:
        """Return the bands in which other rows are computed of what the last ones have left in the
        banks; None where they do not hold all of it."""
        layout, array = self.layer.layout, self.array
        stretch, end = part.bands[0].stretch, part.bands[-1].end
        if any(band.stretch != stretch for band in part.bands) or (
                layout.rows_of(0, end)[1] > array.bank_rows):
            return None
        found = tuple(replace(band, begin=end, end=end, beside=True) for band in part.bands)
        tiles = [band.tiles for band in found]
        whole = replace(found[0], tile=0, tiles=sum(tiles))
        # Where bands have one tile, batches may be cut.
        return (whole,) if max(tiles) > 1 and self._hold(whole) else found

    def _hold(self, whole: Band) -> bool:
        """Whether the table holds the tiles of a band, and of all others."""
        table = TileTable()
        bands = [whole, *(band for part in self.layer.parts for band in part.bands)]
        for band in sorted(bands, key=lambda band: -band.tiles):
            table.add(self.layer.layout.tiles(band.stretch.lines).some(band.tile, band.tiles))
        return TILE_WORDS * len(table.rows) <= self.array.tiles

    def _made(self, sections: Sequence[Sequence[Piece]], used: Sequence[int], room: int,
              places: int, resident: bool) -> Parted:
        groups = self.layer.groups
        pieces = [piece for section in sections for piece in section]
        parts, made = [], []
        for (at, first, end), bands in zip(pieces, self._bands(pieces), strict=True):
            part = self.layer.parts[at]
            parts.append(replace(
                part, rows=part.rows[first * groups:end * groups], bands=tuple(bands),
                added=None if part.added is None else part.added[first * groups:end * groups],
                sets=deal(part.passes[first:end], self.layer.sets),
                **{name: getattr(part, name)[first:end] for name in (
                    "page_steps", "dense", "passes")}))
            made.append(_some(self.made[at], first, end, groups))
        counts = [(len(own.sizes), 2 * (band is not part.bands[0]))
                   for part, own in zip(parts, made, strict=True) for band in part.bands]
        bands = [band for part in parts for band in part.bands]
        # What a band is alone, or what it reads anew; and fills between its batches.
        chunks = sum(1 + anew + 2 * min(self._fill(after).records, count)
                     for (count, anew), after in zip(counts, [*bands[1:], bands[0]], strict=True))
        if (clusters := self.array.clusters) > 1:
            # Each has commands of its own; of a set's batches none may follow the one before.
            readers = clusters if self._turned else self.layer.splits
            chunks = (clusters * (chunks + 3 * (len(bands) + 1))
                      + readers * sum(count for count, _ in counts))
        begins = np.cumsum([0, *map(len, sections)]).tolist()
        cycles = [sum(float(part.passes.sum()) * part.tiles for part in parts[first:end])
                  for first, end in pairwise(begins)]
        anew = [band for (_, first, _), part in zip(pieces, parts, strict=True) if first
                for band in part.bands]
        layer = replace(self.layer, parts=tuple(parts), cycles=self.layer.cycles + sum(
            BAND + self._fill(band).cycles for band in anew))
        return Parted(layer=layer, made=made,
                      begins=tuple(begins[:-1]), resident=int(resident), entries=tuple(used),
                      chunks=chunks, room=room, places=places,
                      shares=tuple(own / max(sum(cycles), 1) for own in cycles))

    def _bands(self, pieces: Sequence[Piece]) -> Iterator[list[Band]]:
        """Yield the bands of each piece: each after the first one of a part computes with what is
        in the banks, or fills them again."""
        layout, depth = self.layer.layout, self.array.bank_rows
        row, low, stretch = 0, None, self.layer.parts[0].bands[0].stretch
        for at, first, _ in pieces:
            again = self._again[at]
            if first and again is not None:
                low = stretch.row
                yield [replace(band, stretch=stretch) for band in again]
                continue
            found = []
            for own, bands in groupby(self.layer.parts[at].bands, key=lambda band: band.stretch):
                stretch, lines, last = replace(own, row=row), layout.tiles(own.lines).lines, 0
                for band in bands:
                    begin, end = layout.rows_of(int(lines[band.tile, 0]), band.end)
                    found.append(replace(band, stretch=stretch, beside=(
                        low is not None and row + end - low <= depth)))
                    low, last = row + begin, band.end
                row += layout.rows_of(0, last)[1]
            yield found


def _denser(graph: QGraph, layer: Layer, made: Sequence[Batches],
            array: Array) -> tuple[Layer, list[Batches]]:
    """Return a layer with a step for every column in batches where that takes fewer cycles than
    copying what more entries they have without."""
    parts, found, cycles = [], [], layer.cycles
    for part, own in zip(layer.parts, made, strict=True):
        every = dense_steps(layer.layout, layer.index)
        columns = int(every.sum())
        entries = [-(-steps * layer.groups // words) for steps, words in (
            (part.steps, ENTRY_WORDS), (columns, 2 * ENTRY_WORDS))]
        more = np.maximum(columns, layer.least) - np.maximum(part.steps, layer.least)
        gains = ~part.dense & (more * layer.phases * part.tiles < (
            entries[0] - entries[1]) * ENTRY_WORDS * array.flash)
        if gains.any():
            more = gains * more * layer.phases
            cycles += int(more.sum()) * part.tiles
            part = replace(part, dense=part.dense | gains, passes=part.passes + more,
                           page_steps=np.where(gains[:, None], every, part.page_steps))
            own = batches(graph, layer, part, array)
        parts.append(part)
        found.append(own)
    return replace(layer, parts=tuple(parts), cycles=cycles), found


def _some(made: Batches, first: int, end: int, groups: int) -> Batches:
    """Return some of the batches of a part."""
    begin, behind = sum(made.sizes[:first]), sum(made.sizes[:end])
    at = ENTRY_WORDS * begin
    inside = (made.fills[:, 0] >= at) & (made.fills[:, 0] < ENTRY_WORDS * behind)
    return Batches(words=made.words[begin:behind], sizes=made.sizes[first:end],
                   heads=made.heads[first * groups:end * groups] - at,
                   fills=made.fills[inside] - [at, 0])


def _entries(op: Op) -> int:
    """Return the entries that a command takes."""
    return -(-(1 + len(RECORDS[op].words)) // ENTRY_WORDS)
