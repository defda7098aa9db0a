"""Which row each bank reads."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.compare import below
from celosia_spec.isa import BLOCK_BITS
from celosia_spec.stream.array import QUAD, Array
from celosia_spec.stream.timing import BANK


class BankRows(wiring.Component):
    """Add tile, tap and channel. Lane p of a group of P' reads bank (p + rotation) mod P'; a bank
    that lies before the rotation has wrapped, and reads in the next position group.

    Members
    -------
    log2_groups : In(2)
        Stable while steps are inside.
    row, next : In
        First bank row of the tile; of its next position group.
    channels : In(quads x 4)
    tap_rows : In(quads x row), rotation : In(quads x log2 lanes)
        Of the taps.
    rows : Out(lanes x row)
        Addresses of the banks.

    Timing
    ------
    Tile and channels come a cycle before the tap, ``rows`` one behind it, through one multiplexer
    from registers.

    Cells on the UP5K, 16 lanes: 298 LUTs, 159 flip-flops.
    """

    LATENCY = BANK - 1

    def __init__(self, array: Array) -> None:
        self.array = array
        self.row_bits = row = (array.bank_rows - 1).bit_length()
        quads, turn = array.groups_max, array.lanes.bit_length() - 1
        super().__init__({
            "log2_groups": In(2), "row": In(row), "next": In(row),
            "channels": In(data.ArrayLayout(BLOCK_BITS, quads)),
            "tap_rows": In(data.ArrayLayout(row, quads)),
            "rotation": In(data.ArrayLayout(turn, quads)),
            "rows": Out(data.ArrayLayout(row, array.lanes)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for q in range(self.array.groups_max):
            here, there = (self._added(m, f"{name}{q}", tile + self.channels[q], self.tap_rows[q])
                           for name, tile in (("row", self.row), ("next", self.next)))
            for j, wraps in enumerate(self._wraps(m, q)):
                m.d.comb += self.rows[q * QUAD + j].eq(Mux(wraps, there, here))
        return m

    def _added(self, m: Module, name: str, begin: Value, more: Value) -> Signal:
        """Return ``begin`` of a cycle and ``more`` of the next one, added, another one later."""
        held, total = (Signal(self.row_bits, name=f"{name}_{part}", reset_less=True)
                       for part in ("begin", "total"))
        m.d.sync += [held.eq(begin), total.eq(held + more)]
        return total

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
