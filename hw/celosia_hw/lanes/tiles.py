"""Tiles: which positions the lanes of a pass work on."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.delay import chain
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import CONTROL_BITS, Array
from celosia_spec.isa.timing import WRITTEN
from celosia_spec.isa.words import piece_bits, tile_words


class Tiles(wiring.Component):
    """Go through a band's tiles, again and again. The next tile's first word waits at the table's
    output; the others are read behind it, each when it is needed.

    Members
    -------
    tile : In(1)
        Strobe: the next tile begins. Strobes are `WRITTEN` cycles apart, or more.
    again : In(1)
        With ``tile``: the band's first tile comes behind this one.
    load : In(1)
        Strobe: the band's first tile comes next. `WRITTEN` cycles or more behind a ``tile``, two
        or more before one.
    band_tile : In, band_piece : In
        The word of the band's first tile, and the piece of bank rows that its tiles count from.
        Stable from ``load`` on.
    write : In(1), address : In, word : In(16)
        Strobe: into the table, before ``load``.
    piece : Out
        The tile's first one.
    starts, behind : Out
        Where lines begin, as in `tile_words`.
    written : Out(lanes)
        Lanes that are written.

    Timing
    ------
    From ``tile`` on, ``piece`` is new a cycle later, ``starts`` and ``behind`` three, ``written``
    `WRITTEN`.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        self.bits = (array.tiles - 1).bit_length()
        piece = piece_bits(array)
        super().__init__({
            "tile": In(1), "again": In(1), "load": In(1), "band_tile": In(self.bits),
            "band_piece": In(piece), "write": In(1), "address": In(self.bits),
            "word": In(CONTROL_BITS), "piece": Out(piece), "starts": Out(array.lanes),
            "behind": Out(1), "written": Out(array.lanes),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.table = table = TableMemory(self.array.tiles, CONTROL_BITS)
        begins, _, starts, written = chain(m, self.tile, WRITTEN - 1, "begun", reset_less=False)
        loaded, back = Signal(), Signal(reset_less=True)
        place = Signal(self.bits, reset_less=True)
        with m.If(begins):
            m.d.sync += back.eq(self.again)
        m.d.sync += loaded.eq(self.load)
        m.d.comb += [
            table.write.en.eq(self.write), table.write.addr.eq(self.address),
            table.write.data.eq(self.word), table.read.addr.eq(place),
            table.read.en.eq(begins | starts | written | loaded),
        ]
        with m.If(table.read.en | self.load):
            m.d.sync += place.eq(Mux(self.load | (starts & back), self.band_tile, place + 1))
        word = table.read.data
        given = tile_words(self.array)[0]
        of = data.View(layout(given), word[:given.bits])
        behind = Signal(reset_less=True)
        held = {name: Signal.like(getattr(self, name), name=f"held_{name}", reset_less=True)
                for name in ("piece", "starts", "behind", "written")}
        with m.If(begins):
            m.d.sync += [held["piece"].eq(of.piece + self.band_piece), behind.eq(of.behind)]
        with m.If(starts):
            m.d.sync += [held["starts"].eq(word), held["behind"].eq(behind)]
        with m.If(written):
            m.d.sync += held["written"].eq(word)
        m.d.comb += [getattr(self, name).eq(signal) for name, signal in held.items()]
        return m
