"""The banked activation memory: P neighbouring mantissas a cycle, aligned to the lanes."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import operand_layout, step_layout, tile_layout
from celosia_hw.parts.compare import below
from celosia_hw.parts.rotator import Rotator
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
    operand, flags, tile, log2_groups : In
        Decoded step (:class:`Decoder`) and the tile it belongs to, in the same cycle.
    x : Out(lanes mantissas), weights : Out(groups_max mantissas), flags_out : Out
        Operands of the lanes; ``flags_ahead`` is ``flags_out`` early enough for the output stage.
    write_enable : In(lanes), write_row, write_data : In
        Writes. Banks ``j``, ``j + beat``, ``j + 2 * beat`` ... share row and data ``j``.

    Timing
    ------
    ``x`` is valid ``latency`` cycles after ``operand``; a deep array has registers behind the row
    adders, before and behind the memories and inside the rotator. A mantissa written in one cycle
    can be read by an operand of the next.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        timing = Timing.of(array)
        self.latency, self.lead = timing.banks, timing.drain_lead - ACCUMULATE
        quads = array.groups_max
        super().__init__({
            "operand": In(data.ArrayLayout(operand_layout(array), quads)),
            "flags": In(step_layout),
            "tile": In(tile_layout(array)),
            "log2_groups": In(3),
            "x": Out(data.ArrayLayout(signed(array.activation_bits), array.lanes)),
            "weights": Out(data.ArrayLayout(signed(array.weight_bits), quads)),
            "flags_out": Out(step_layout), "flags_ahead": Out(step_layout),
            "write_enable": In(array.lanes),
            "write_row": In(data.ArrayLayout(array.bank_row_bits, array.beat)),
            "write_data": In(data.ArrayLayout(array.activation_bits, array.beat)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        quads, lanes = array.groups_max, array.lanes
        m.submodules.rotator = rotator = Rotator(lanes, array.activation_bits, quads, self.deep)
        m.d.comb += rotator.log2_groups.eq(self.log2_groups)

        def delayed(value: Value, cycles: int, name: str) -> Value:
            for k in range(cycles):
                after = Signal.like(value, name=f"{name}_{k}", reset_less=True)
                m.d.sync += after.eq(value)
                value = after
            return value

        flags = [self.flags]
        for k in range(self.latency):
            after = Signal(step_layout, name=f"flags{k}")
            m.d.sync += after.eq(flags[-1])
            flags.append(after)
        m.d.comb += [self.flags_out.eq(flags[-1]),
                     self.flags_ahead.eq(flags[self.latency - self.lead])]

        for q in range(quads):
            operand = self.operand[q]
            m.d.comb += self.weights[q].eq(delayed(operand.mantissa, self.latency, f"weight{q}"))
            rotation = delayed(operand.rotation, 1 + 3 * self.deep, f"rotation{q}")
            m.d.comb += rotator.rotation[q].eq(rotation)
            rows = [Signal(array.bank_row_bits, name=f"row{q}_{k}", reset_less=True)
                    for k in range(3)]
            step = m.d.sync if self.deep else m.d.comb
            step += [rows[k].eq(operand.row + self.tile[name]) for k, name in enumerate(
                ("row", "next", "after"))]
            wraps, behind = self._selects(m, q, step)
            for j in range(array.quad):
                b = q * array.quad + j
                address = Signal(array.bank_row_bits, name=f"address{b}")
                m.d.comb += address.eq(Mux(wraps[j] & behind[j], rows[2],
                                           Mux(wraps[j] | behind[j], rows[1], rows[0])))
                address = delayed(address, int(self.deep), f"address{b}")
                m.submodules[f"bank{b}"] = bank = Memory(
                    shape=array.activation_bits, depth=array.bank_rows, init=[],
                    attrs={"ram_style": "block"})
                read, write = bank.read_port(), bank.write_port()
                value = delayed(read.data, int(self.deep), f"value{b}")
                m.d.comb += [
                    read.addr.eq(address),
                    write.en.eq(self.write_enable[b]),
                    write.addr.eq(self.write_row[b % array.beat]),
                    write.data.eq(self.write_data[b % array.beat]),
                    rotator.i[b].eq(value),
                    self.x[b].eq(rotator.o[b]),
                ]
        return m

    def _selects(self, m: Module, q: int, step: Any) -> tuple[Any, Any]:
        """Return, for each bank of quad ``q``, whether it wrapped and whether its lane lies behind
        the line break."""
        array = self.array
        bits = array.lane_bits
        operand = self.operand[q]
        # Group-local numbers become bank numbers by the bits that are constant in this quad.
        start, turn = Signal(bits, name=f"start{q}"), Signal(bits + 1, name=f"turn{q}")
        split = Signal(bits, name=f"split{q}")
        around = Signal(name=f"around{q}")
        m.d.comb += turn.eq(operand.rotation + self.tile.split)
        for groups in range(array.groups_max.bit_length()):
            low = bits - groups
            base = Const(q * array.quad >> low, groups) if groups else Const(0, 0)
            with m.If(self.log2_groups == groups):
                m.d.comb += [start.eq(Cat(operand.rotation[:low], base)),
                             split.eq(Cat(turn[:low], base)), around.eq(turn[low])]
        wraps, behind = [], []
        for j in range(array.quad):
            b = q * array.quad + j
            wrap, inside = Signal(name=f"wrap{b}"), Signal(name=f"behind{b}")
            wrapped = below(b, start)
            step += [
                wrap.eq(wrapped),
                inside.eq(self.tile.broken & Mux(around, ~below(b, split) & wrapped,
                                                 ~below(b, split) | wrapped)),
            ]
            wraps.append(wrap)
            behind.append(inside)
        return wraps, behind
