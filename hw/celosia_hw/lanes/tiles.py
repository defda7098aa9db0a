"""Tiles: which positions the lanes of a pass work on."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.delay import chain
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.stream.array import CONTROL_BITS, EDGE, Array
from celosia_spec.stream.timing import WRITTEN
from celosia_spec.stream.words import tile_words


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
    band_tile : In, band_row : In
        The word of the band's first tile, and the bank row that its tiles count from. Stable from
        ``load`` on.
    rows : In
        Bank rows from one position group to the next; likewise.
    write : In(1), address : In, word : In(16)
        Strobe: into the table, before ``load``.
    row, next : Out
        First bank row of the tile; of its next position group.
    starts, before, behind : Out
        Where lines begin, as in `tile_words`.
    written : Out(lanes)
        Lanes that are written.

    Timing
    ------
    From ``tile`` on, ``row`` and ``next`` are new a cycle later, ``starts``, ``before`` and
    ``behind`` three, ``written`` `WRITTEN`.

    Cells on the UP5K, 16 lanes: 45 LUTs, 84 flip-flops.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        self.bits = (array.tiles - 1).bit_length()
        row = (array.bank_rows - 1).bit_length()
        super().__init__({
            "tile": In(1), "again": In(1), "load": In(1), "band_tile": In(self.bits),
            "band_row": In(row), "rows": In(row), "write": In(1), "address": In(self.bits),
            "word": In(CONTROL_BITS), "row": Out(row), "next": Out(row),
            "starts": Out(array.lanes), "before": Out(EDGE), "behind": Out(EDGE),
            "written": Out(array.lanes),
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
        word, far = table.read.data, Signal.like(self.next, reset_less=True)
        given = tile_words(self.array)[0]
        of = data.View(layout(given), word[:given.bits])
        edges = Signal(2 * EDGE, reset_less=True)
        m.d.sync += far.eq(self.band_row + self.rows)
        held = {name: Signal.like(getattr(self, name), name=f"held_{name}", reset_less=True)
                for name in ("row", "next", "starts", "before", "behind", "written")}
        with m.If(begins):
            m.d.sync += [held["row"].eq(of.row + self.band_row), held["next"].eq(of.row + far),
                         edges.eq(Cat(of.before, of.behind))]
        with m.If(starts):
            m.d.sync += [held["starts"].eq(word), Cat(held["before"], held["behind"]).eq(edges)]
        with m.If(written):
            m.d.sync += held["written"].eq(word)
        m.d.comb += [getattr(self, name).eq(signal) for name, signal in held.items()]
        return m
