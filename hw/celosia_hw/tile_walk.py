"""Tiles: where the lanes of one tile read, and where a line ends among them."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.isa import ArrayConfig
from celosia_hw.layouts import tile_layout


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
    log2_groups, last_tile, line, base, channels, jump : In
        Of the layer (see :class:`celosia_hw.isa.Word`).
    tile : Out(tile_layout)

    Timing
    ------
    ``tile`` changes one cycle after ``advance``. Stepping to the next tile takes up to four
    cycles, while the lanes work on the present one.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "load": In(1), "advance": In(1), "log2_groups": In(3),
            "last_tile": In(array.count_bits),
            "line": In(array.count_bits), "base": In(array.bank_row_bits), "channels": In(array.bank_row_bits),
            "jump": In(1), "tile": Out(tile_layout(array)),
        })

    def elaborate(self, platform):
        m = Module()
        array = self.array
        tile = Signal(tile_layout(array))
        row = Signal(array.bank_row_bits)           # base of the tile that comes next
        x = Signal(array.count_bits + 1)                              # its first position within the line
        left = Signal(array.count_bits)                           # tiles of the batch that come after it
        size = Signal(array.lane_bits + 1)
        m.d.comb += [self.tile.eq(tile), size.eq(array.lanes >> self.log2_groups)]
        line_end = Signal(array.count_bits + 1)
        m.d.comb += line_end.eq(self.line - x)
        with m.If(self.advance):
            m.d.sync += [
                tile.row.eq(row),
                tile.next.eq(row + self.channels),
                tile.after.eq(row + self.channels + self.channels),
                tile.split.eq(line_end),
                tile.broken.eq(self.jump & (line_end < size)),
            ]
        with m.If(self.load | (self.advance & (left == 0))):
            m.d.sync += [row.eq(self.base), x.eq(0), left.eq(self.last_tile)]
        with m.Elif(self.advance):
            m.d.sync += [row.eq(row + self.channels), x.eq(x + size), left.eq(left - 1)]
        with m.Elif(x >= self.line):
            m.d.sync += [row.eq(row + Mux(self.jump, self.channels, 0)), x.eq(x - self.line)]
        return m
