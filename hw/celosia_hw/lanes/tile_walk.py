"""Tiles: where the lanes of one tile read, and where a line ends among them."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import tile_layout
from celosia_spec.isa import ArrayConfig


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
    log2_groups, line, base, channels, jump : In
        Of the layer (see :class:`celosia_spec.isa.Word`).
    host_valid, host_row : In
        While ``host_valid``, every lane reads this bank row (for the host's reads).
    tile : Out(tile_layout)

    Timing
    ------
    ``tile`` changes one cycle after ``advance``. Stepping to the next tile takes up to four
    cycles, while the lanes work on the present one.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "load": In(1), "advance": In(1), "last": In(1), "log2_groups": In(3),
            "line": In(array.count_bits), "base": In(array.bank_row_bits),
            "channels": In(array.bank_row_bits),
            "jump": In(1),
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
        m.d.comb += [self.tile.eq(tile), size.eq(array.lanes >> self.log2_groups)]
        with m.If(self.advance):
            m.d.sync += [
                tile.row.eq(row),
                tile.next.eq(row + self.channels),
                tile.after.eq(row + self.channels + self.channels),
                tile.split.eq(rest),
                tile.broken.eq(self.jump & (rest < size)),
            ]
        with m.If(self.host_valid):
            m.d.sync += [tile.broken.eq(0), *(tile[name].eq(self.host_row)
                                              for name in ("row", "next", "after"))]
        with m.If(self.load | (self.advance & self.last)):
            m.d.sync += [row.eq(self.base), rest.eq(self.line)]
        with m.Elif(self.advance):
            m.d.sync += [row.eq(row + self.channels), rest.eq(rest - size)]
        with m.Elif(rest <= 0):
            m.d.sync += [row.eq(row + Mux(self.jump, self.channels, 0)), rest.eq(rest + self.line)]
        return m
