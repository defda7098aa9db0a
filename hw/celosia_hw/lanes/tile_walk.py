"""Tiles: where the lanes of one tile read, and where a line ends among them."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_spec.isa import DESCRIPTOR, ArrayConfig


def tile_layout(array: ArrayConfig) -> data.StructLayout:
    """Return bank-row bases of one tile and its line break.

    row, next, after : of lanes that read in the tile's position group, in the next one, and in the
                       one after it.
    split     : first lane of the group that lies on the next line.   broken : there is one.
    """
    rows = dict.fromkeys(("row", "next", "after"), array.bank_row_bits)
    return data.StructLayout({**rows, "split": array.lane_bits, "broken": 1})


class TileWalk(wiring.Component):
    """Walk over the tiles of an output map, again and again for every batch.

    A tile is ``lanes / groups`` neighbouring output positions of the flattened map. The input map
    is stored so that positions ``n`` and ``n + 1`` lie in neighbouring banks even across a line
    end; only the bank row jumps there, by one position group more. At most one line ends inside a
    tile.

    Members
    -------
    load : In
        Strobe: begin at the first tile. ``tile`` is valid from the first ``advance`` on.
    advance : In
        Strobe: ``tile`` becomes the next one in the following cycle. Strobes inside a batch are
        at least ``timing.MIN_PASS`` cycles apart.
    last : In
        With ``advance``: the tile is the last of its batch, the next one is the first again.
    layer : In(descriptor group "lanes")
    host_valid, host_row : In
        While ``host_valid``, every lane reads this bank row (for the host's reads).
    tile : Out(tile_layout)
        Bank-row bases and the line break of the present tile.

    Timing
    ------
    ``tile`` changes one cycle after ``advance``. Stepping to the next tile takes up to four
    cycles, while the lanes work on the present one.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "load": In(1), "advance": In(1), "last": In(1),
            "layer": In(layout(DESCRIPTOR.groups["lanes"])),
            "host_valid": In(1), "host_row": In(array.bank_row_bits),
            "tile": Out(tile_layout(array)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        tile = Signal(tile_layout(array))
        # Of the tile that comes next: its base, and positions from its first to the line's end.
        row, rest = Signal(array.bank_row_bits), Signal(signed(array.count_bits + 1))
        size = Signal(array.lane_bits + 1)
        line, jump = self.layer.line[:array.count_bits], self.layer.jump
        base, channels = (field[:array.bank_row_bits]
                          for field in (self.layer.in_base, self.layer.in_channels))
        m.d.comb += [self.tile.eq(tile), size.eq(array.lanes >> self.layer.log2_groups[:3])]
        with m.If(self.advance):
            m.d.sync += [
                tile.row.eq(row),
                tile.next.eq(row + channels),
                tile.after.eq(row + channels + channels),
                tile.split.eq(rest),
                tile.broken.eq(jump & (rest < size)),
            ]
        with m.If(self.host_valid):
            m.d.sync += [tile.broken.eq(0), *(tile[name].eq(self.host_row)
                                              for name in ("row", "next", "after"))]
        with m.If(self.load | (self.advance & self.last)):
            m.d.sync += [row.eq(base), rest.eq(line)]
        with m.Elif(self.advance):
            m.d.sync += [row.eq(row + channels), rest.eq(rest - size)]
        with m.Elif(rest <= 0):
            m.d.sync += [row.eq(row + Mux(jump, channels, 0)), rest.eq(rest + line)]
        return m
