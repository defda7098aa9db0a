"""Writes into the activation banks: results, the host's mantissas, and clearing."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.compare import below
from celosia_hw.signatures import HostMemory, Prepare, Results, Writes
from celosia_spec.isa import DESCRIPTOR, ArrayConfig


class BankWriter(wiring.Component):
    """Spread the elements of a beat over neighbouring banks, into every group's copy.

    Element ``element`` goes to bank ``place.bank`` of each group of the consumer, the next one to
    the bank behind it, and so on for ``place.count + 1`` elements; a bank number past the group's
    end wraps to one position group further, ``write_carry`` bank rows. With ``deinterleave``
    elements are taken in the order 0, 2, ..., 1, 3, ..., and those of the second half go
    ``plane_rows`` bank rows further: even and odd columns of a map part into two planes.

    Members
    -------
    results : In(Results)
    prepare : In(Prepare)
        Rows to clear.
    layer : In(descriptor group "lanes")
    host : In(HostMemory)
        Writes only, a mantissa; address = bank row * lanes + bank.
    writes : Out(Writes)

    Timing
    ------
    ``writes`` come ``LATENCY`` cycles later. The three sources exclude each other.
    """

    LATENCY = 1

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "results": In(Results(array)), "prepare": In(Prepare(array)),
            "layer": In(layout(DESCRIPTOR.groups["lanes"])),
            "host": In(HostMemory(readable=False)), "writes": Out(Writes(array)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        slots, beat, beat_bits = array.pass_beats, array.beat, array.beat_bits
        slot_bits = slots.bit_length() - 1
        results, place, layer = self.results, self.results.place, self.layer
        low = place.bank[:beat_bits]
        other = self._other(m)
        rows = [Signal(array.bank_row_bits, name=f"row{k}") for k in range(4)]
        carry, plane = (field[:array.bank_row_bits]
                        for field in (layer.write_carry, layer.plane_rows))
        group_slots, mask = Signal(slot_bits + 1), Signal(max(1, slot_bits))
        m.d.comb += [
            rows[0].eq(place.row), rows[1].eq(place.row + carry),
            rows[2].eq(rows[0] + plane), rows[3].eq(rows[1] + plane),
            group_slots.eq(slots >> layer.log2_out_groups[:3]), mask.eq(group_slots - 1),
        ]
        for j in range(beat):
            offset, order, source = (Signal(beat_bits, name=f"{n}{j}")
                                     for n in ("offset", "order", "source"))
            slot, wrapped = Signal(slot_bits + 1, name=f"slot{j}"), Signal(name=f"wrapped{j}")
            taken, far = Signal(name=f"taken{j}"), Signal(name=f"far{j}")
            m.d.comb += [
                offset.eq(j - low), taken.eq(results.valid & (offset <= place.count)
                         & results.real.bit_select(source, 1)),
                order.eq(results.element + offset), far.eq(layer.deinterleave & order[-1]),
                source.eq(Mux(layer.deinterleave, Cat(order[-1], order[:-1]), order)),
                slot.eq(place.bank[beat_bits:] + below(j, low)), wrapped.eq(slot == group_slots),
            ]
            row = Mux(far, Mux(wrapped, rows[3], rows[2]), Mux(wrapped, rows[1], rows[0]))
            m.d.sync += [
                self.writes.row[j].eq(Mux(other.valid, other.row, row)),
                self.writes.data[j].eq(Mux(other.valid, other.data, results.mantissas[source])),
            ]
            for s in range(slots):
                here = (Const(s, max(1, slot_bits)) & mask) == (slot & mask)
                b = s * beat + j
                m.d.sync += self.writes.enable[b].eq((other.valid & other.banks[b])
                                                     | (taken & here))
        return m

    def _other(self, m: Module) -> data.View:
        """Return the write that is no result: clearing, or else the host's."""
        array, host = self.array, self.host
        other = Signal(data.StructLayout({
            "valid": 1, "row": array.bank_row_bits, "data": array.activation_bits,
            "banks": array.lanes}))
        clear = Signal()
        m.d.comb += [
            clear.eq(self.prepare.clear if array.clearing else 0),
            other.valid.eq(host.write | clear),
            other.row.eq(Mux(clear, self.prepare.clear_row, host.address[array.lane_bits:])),
            other.data.eq(Mux(clear, 0, host.data[:array.activation_bits])),
            other.banks.eq(Mux(clear, (1 << array.lanes) - 1,
                               (1 << host.address[:array.lane_bits])[:array.lanes])),
        ]
        return other
