"""Which row each bank reads."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.compare import below
from celosia_hw.parts.delay import delayed
from celosia_spec.isa.array import PIECE_BITS, QUAD, Array
from celosia_spec.isa.timing import BANK
from celosia_spec.isa.words import BLOCK_BITS, piece_bits


class BankRows(wiring.Component):
    """Add tile, tap and channel. Lane p of a group of P' reads bank (p + rotation) mod P'; a bank
    that lies before the rotation has wrapped, and reads in the next position group.

    Tiles, taps and position groups are whole pieces of bank rows, so a channel's lowest bits are
    those of its row. What a wrapped bank reads further on is added for each bank: the look-up table
    of a sum's bit also chooses between the sum and what it begins with.

    Members
    -------
    log2_groups : In(2)
        Stable while steps are inside.
    piece : In
        The tile's first one.
    group : In
        Pieces from one position group to the next; stable while steps are inside.
    channels : In(quads x 4)
    tap_pieces : In(quads x piece), rotation : In(quads x log2 lanes)
        Of the taps.
    rows : Out(lanes x row)
        Addresses of the banks.

    Timing
    ------
    Tile and channels come a cycle before the tap, ``rows`` one behind it, through one adder from
    registers.
    """

    LATENCY = BANK - 1

    def __init__(self, array: Array) -> None:
        self.array = array
        self.bits = piece = piece_bits(array)
        quads, turn = array.groups_max, array.lanes.bit_length() - 1
        super().__init__({
            "log2_groups": In(2), "piece": In(piece), "group": In(piece),
            "channels": In(data.ArrayLayout(BLOCK_BITS, quads)),
            "tap_pieces": In(data.ArrayLayout(piece, quads)),
            "rotation": In(data.ArrayLayout(turn, quads)),
            "rows": Out(data.ArrayLayout(piece + PIECE_BITS, array.lanes)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for q in range(self.array.groups_max):
            channel = self.channels[q]
            begin, total = (Signal(self.bits, name=f"{name}{q}", reset_less=True)
                            for name in ("begin", "total"))
            low = delayed(m, channel[:PIECE_BITS], 2, f"low{q}")
            m.d.sync += [begin.eq(self.piece + channel[PIECE_BITS:]),
                         total.eq(begin + self.tap_pieces[q])]
            for j, wraps in enumerate(self._wraps(m, q)):
                there = Signal(self.bits, name=f"there{q}_{j}")
                m.d.comb += [there.eq(total + self.group),
                             self.rows[q * QUAD + j].eq(Cat(low, Mux(wraps, there, total)))]
        return m

    def _wraps(self, m: Module, q: int) -> list[Signal]:
        """Tell which banks of a quad have wrapped."""
        quads, rotation = self.array.groups_max, self.rotation[q]
        low, high = rotation[:2], rotation[2:]
        above, same = Signal(name=f"above{q}"), Signal(name=f"same{q}")
        with m.Switch(self.log2_groups):
            for log2_groups in range(quads.bit_length()):
                with m.Case(log2_groups):
                    # The quad's number in its group has as many bits as the rotation there.
                    inside = q & (quads >> log2_groups) - 1
                    turned = high[:len(high) - log2_groups]
                    m.d.comb += [above.eq(below(inside, turned)), same.eq(turned == inside)]
        found = [Signal(name=f"wraps{q}_{j}", reset_less=True) for j in range(QUAD)]
        m.d.sync += [wraps.eq(above | (same & below(j, low))) for j, wraps in enumerate(found)]
        return found
