"""A layer's part of the stream for a step: its commands, and its batches between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from celosia.bands import layer_commands
from celosia.bands.batches import Batches
from celosia.bands.entries import Chunk, Entries, Lists, command, controls, table
from celosia.bands.laid import Laid
from celosia.bands.layouts import Band
from celosia.bands.pages import beside_words
from celosia.bands.plan import Layer, Part
from celosia.bands.tiles import TileTable
from celosia.bands.turns import ahead, turns
from celosia_spec.isa.controls import Op
from celosia_spec.isa.words import TILE_WORDS
from celosia_spec.qgraph import as_made
from celosia_spec.steps import first_line

Records = list[dict[str, int]]
"""Fills of a band."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sections:
    """Where a layer's entries are held.

    holds  : its sections.   copies : the words that stand behind each.
    begins : the numbers of the parts with which those behind the first one begin.
    """

    holds: Sequence[Entries]
    copies: Sequence[list[int]]
    begins: Sequence[int]


@dataclass(kw_only=True)
class LayerStream:
    """Adds a layer's entries for a step of a period to where they are held, and lets them be read;
    what it has in common with other steps is there once.

    made    : the batches of its parts.   out : the order in which they are read.
    weights : the batches of its parts, if they are there.
    """

    network: Laid
    layer: Layer
    made: Sequence[Batches]
    out: Lists
    sections: Sections
    weights: dict[int, Chunk]
    step: int
    period: int
    _tiles: TileTable = field(default_factory=TileTable)
    _rows: dict[Band, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._roles = count()
        self._following = iter(zip(self.sections.holds, self.sections.copies, strict=True))
        self._here, self._behind = next(self._following)
        layout = self.layer.layout
        for band in sorted(self.layer.bands, key=lambda band: -band.tiles):  # longer hold others
            own = layout.tiles(band.stretch.lines).some(band.tile, band.tiles)
            first, row = self._tiles.add(own)
            self._rows[band] = first, (band.stretch.row + row) % self.network.array.bank_rows

    def add(self) -> int:
        """Add all; return how many entries stand before the first band."""
        layer, begins = self.layer, self.sections.begins
        first, *others = (layer_commands.fills(self.network, layer, band, self.step)
                          for band in layer.bands)
        begun = self._begin(first)
        following = iter(zip(layer.bands[1:], others, strict=True))
        left: Records = []
        for number, part in enumerate(layer.parts):
            waiting: Records = []
            if number in begins:
                waiting = left
                self._next_section()
            for band in part.bands:
                self._band(band, waiting)
                waiting = []
                after, left = next(following, (None, []))
                # The next band is filled beside this one's batches, where it has other rows.
                left = self._batches(number, part, band, left,
                                     beside=after is not None and after.beside)
                if left and not (band is part.bands[-1] and number + 1 in begins):
                    self._commands(command(Op.WAIT), left)
        self._commands(layer_commands.close(self.network, layer))
        return begun

    def _commands(self, words: list[int], filled: Sequence[dict[str, int]] = (),
                  own: Sequence[list[int]] = ()) -> None:
        """Let clusters read commands: the same, then the first one's fills, then its own."""
        role = self.layer.node.name, next(self._roles)
        for cluster, order in enumerate(self.out.clusters):
            told = [*words]
            if cluster == 0:
                told += [word for record in filled for word in command(Op.FILL, **record)]
            if own:
                told += own[cluster]
            order.read(self._here.add(controls(told), role))

    def _begin(self, filled: Records) -> int:
        """Add what stands before the first band, the fills of that last; return how much."""
        network, layer = self.network, self.layer
        tensors, array = network.graph.tensors, network.array
        before = self._here.size
        turn = first_line(tensors, layer.node.input, self.step) if layer.layout.around else 0
        taps = layer_commands.taps(layer, array, turn)
        begin = (table(Op.TILES, self._tiles.words(array, layer.groups))
                 + layer_commands.join(network, layer) + layer_commands.fields(network, layer))
        if self.period > 1:
            self._commands(taps)
            self._commands(begin)
            self._commands([], filled)
        elif array.clusters > 1:
            self._commands(taps + begin)
            self._commands([], filled)
        else:
            self._commands(taps + begin, filled)
        return self._here.size - before

    def _next_section(self) -> None:
        """Go on in the next section: all of the one before has been read."""
        if self._behind:
            self._commands(self._behind)
        self._here, self._behind = next(self._following)
        self.out.wait()

    def _shares(self, band: Band) -> list[range]:
        """Return the tiles of a band that each cluster has."""
        return [self.layer.share(band, cluster) for cluster in range(self.network.array.clusters)]

    def _band(self, band: Band, waiting: Records) -> None:
        """Begin a band, behind fills of it that are waited for."""
        tensors, node = self.network.graph.tensors, self.layer.node
        written = self.layer.layout.tiles(band.stretch.lines).written
        width = as_made(tensors, node).shape[2]
        line = first_line(tensors, node.output, self.step) + band.stretch.line
        first, row = self._rows[band]
        self._commands(command(Op.WAIT) if waiting else [], waiting, [command(
            Op.BAND, row=row, tile=(first + share.start - band.tile) * TILE_WORDS,
            last_tile=max(len(share), 1) - 1,
            position=line * width + int(written[:share.start].sum())
            << self.network.places[node.output].wide) for share in self._shares(band)])

    def _batches(self, number: int, part: Part, band: Band, left: Records, *,
                 beside: bool) -> Records:
        """Let clusters read the batches of a part for a band, and beside them, where they may,
        fills of the next band; return those that are left."""
        layer, array, made = self.layer, self.network.array, self.made[number]
        shares = self._shares(band)
        if number not in self.weights:
            self.weights[number] = self._here.add(made.entries(
                self.network.graph, layer, part, self.network.places, array))
        passes = (part.passes[layer.batches(part, 0)] * len(shares[0])).tolist()
        if beside and (early := ahead(left, passes, layer.groups, array)):
            self._commands([], left[:early])
            left = left[early:]
        behind = turns(left, passes, array) if beside else {}
        at = self.weights[number][0] + np.cumsum([0, *made.sizes])
        for cluster, order in enumerate(self.out.clusters):
            for turn, batch in enumerate(layer.batches(part, cluster) if shares[cluster] else []):
                order.read((int(at[batch]), made.sizes[batch]))
                if cluster == 0 and (filled := behind.get(turn, 0)):
                    self._commands([], left[:filled])
                    left = left[filled:]
        if (paged := beside_words(layer.layout)) and array.clusters > 1:
            turned = self._here.add(controls(paged), (layer.node.name, -1))
            for order in self.out.clusters[1:]:
                for _ in made.sizes:
                    order.read(turned)
        return left
