"""The banked activation memory: P neighbouring mantissas a cycle, aligned to the lanes."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.lanes.tile_walk import tile_layout
from celosia_hw.parts.compare import below
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.rotator import Rotator
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import FLAGS, Factors, Operands, Writes
from celosia_spec.isa import ArrayConfig
from celosia_spec.isa.timing import ACCUMULATE, Timing


class Banks(wiring.Component):
    """Read one mantissa for each lane; write up to a beat of them.

    Inside a group of ``size`` banks, lane ``p`` reads bank ``(p + rotation) % size``, at the bank
    row ``operand.row`` plus the tile's base for this lane: banks that wrapped read one position
    group further, lanes behind the line break another one.

    Parameters
    ----------
    array : ArrayConfig

    Members
    -------
    operands : In(Operands), tile : In(tile_layout), log2_groups : In(3)
        Decoded step, the tile it belongs to, and log2 of the row groups, in the same cycle.
    factors : Out(Factors)
    ahead : Out(FLAGS)
        The flags of ``factors`` early enough for the output stage.
    writes : In(Writes)

    Timing
    ------
    ``factors`` are valid ``latency`` cycles after ``operands``; a deep array has registers behind
    the row adders, before and behind the memories and inside the rotator. A mantissa written in
    one cycle can be read by an operand of the next.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        timing = Timing.of(array)
        self.latency, self.lead = timing.banks, timing.drain_lead - ACCUMULATE
        super().__init__({
            "operands": In(Operands(array)), "tile": In(tile_layout(array)),
            "log2_groups": In(3), "factors": Out(Factors(array)), "ahead": Out(FLAGS),
            "writes": In(Writes(array)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        quads = array.groups_max
        m.submodules.rotator = rotator = Rotator(array.lanes, array.activation_bits, quads,
                                                 self.deep)
        flags = chain(m, self.operands.flags, self.latency, "flags", reset_less=False)
        m.d.comb += [rotator.log2_groups.eq(self.log2_groups), self.factors.flags.eq(flags[-1]),
                     self.ahead.eq(flags[self.latency - self.lead])]
        for q in range(quads):
            operand = self.operands.operand[q]
            m.d.comb += [
                self.factors.weights[q].eq(
                    delayed(m, operand.mantissa, self.latency, f"weight{q}")),
                rotator.rotation[q].eq(
                    delayed(m, operand.rotation, 1 + 3 * self.deep, f"rotation{q}"))]
            for b, address in enumerate(self._addresses(m, q), q * array.quad):
                m.submodules[f"bank{b}"] = bank = TableMemory(
                    array.bank_rows, array.activation_bits, output_register=self.deep)
                m.d.comb += [
                    bank.read.addr.eq(address),
                    bank.write.en.eq(self.writes.enable[b]),
                    bank.write.addr.eq(self.writes.row[b % array.beat]),
                    bank.write.data.eq(self.writes.data[b % array.beat]),
                    rotator.i[b].eq(bank.read.data),
                    self.factors.x[b].eq(rotator.o[b]),
                ]
        return m

    def _addresses(self, m: Module, q: int) -> list[Signal]:
        """Return the bank row that each bank of quad ``q`` reads."""
        array = self.array
        step = m.d.sync if self.deep else m.d.comb
        rows = [Signal(array.bank_row_bits, name=f"row{q}_{k}", reset_less=True)
                for k in range(3)]
        step += [row.eq(self.operands.operand[q].row + self.tile[name])
                 for row, name in zip(rows, ("row", "next", "after"), strict=True)]
        addresses = []
        for b, wraps, behind in self._selects(m, q, step):
            address = Signal(array.bank_row_bits, name=f"address{b}")
            m.d.comb += address.eq(Mux(wraps & behind, rows[2],
                                       Mux(wraps | behind, rows[1], rows[0])))
            addresses.append(delayed(m, address, int(self.deep), f"address{b}"))
        return addresses

    def _selects(self, m: Module, q: int, step: Any) -> list[tuple[int, Signal, Signal]]:
        """Return, for each bank of quad ``q``, its number, whether it wrapped, and whether its lane
        lies behind the line break."""
        array = self.array
        bits = array.lane_bits
        rotation = self.operands.operand[q].rotation
        # Group-local numbers become bank numbers by the bits that are constant in this quad.
        start, turn = Signal(bits, name=f"start{q}"), Signal(bits + 1, name=f"turn{q}")
        split = Signal(bits, name=f"split{q}")
        around = Signal(name=f"around{q}")
        m.d.comb += turn.eq(rotation + self.tile.split)
        for groups in range(array.groups_max.bit_length()):
            low = bits - groups
            base = Const(q * array.quad >> low, groups) if groups else Const(0, 0)
            with m.If(self.log2_groups == groups):
                m.d.comb += [start.eq(Cat(rotation[:low], base)),
                             split.eq(Cat(turn[:low], base)), around.eq(turn[low])]
        selects = []
        for b in range(q * array.quad, (q + 1) * array.quad):
            wraps, behind = Signal(name=f"wraps{b}"), Signal(name=f"behind{b}")
            wrapped = below(b, start)
            step += [
                wraps.eq(wrapped),
                behind.eq(self.tile.broken & Mux(around, ~below(b, split) & wrapped,
                                                 ~below(b, split) | wrapped)),
            ]
            selects.append((b, wraps, behind))
        return selects
