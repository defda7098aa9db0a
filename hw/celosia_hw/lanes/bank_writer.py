"""Writes into the activation banks: results, the host's mantissas, and clearing."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import write_layout
from celosia_hw.parts.compare import below
from celosia_spec.isa import ArrayConfig


class BankWriter(wiring.Component):
    """Spread the elements of a beat over neighbouring banks, into every group's copy.

    Element ``element`` goes to bank ``place.bank`` of each group of the consumer, the next one to
    the bank behind it, and so on for ``place.count + 1`` elements; a bank number past the group's
    end wraps to one position group further, ``carry`` bank rows. With ``deinterleave`` elements
    are taken in the order 0, 2, ..., 1, 3, ..., and those of the second half go ``plane`` bank
    rows further: even and odd columns of a map part into two planes.

    Members
    -------
    valid, place, element, m, real : In
        One write-table entry, the beat's mantissas, and which of them are to be written at all.
    log2_groups, carry, plane, deinterleave : In
        Of the layer: log2 of the consumer's groups, and as said above.
    host_valid, host_address, host_data : In
        Write one mantissa; address = bank row * lanes + bank.
    clear_valid, clear_row : In
        Write zero into this row of every bank.
    enable : Out(lanes), row, data : Out(beat x ...)
        To :class:`celosia_hw.lanes.banks.Banks`.

    Timing
    ------
    Writes appear ``LATENCY`` cycles later. The three sources exclude each other.
    """

    LATENCY = 1

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        rows, bits = array.bank_row_bits, array.activation_bits
        super().__init__({
            "valid": In(1), "place": In(write_layout(array)), "element": In(array.beat_bits),
            "m": In(data.ArrayLayout(bits, array.beat)), "real": In(array.beat),
            "log2_groups": In(3), "carry": In(rows), "plane": In(rows), "deinterleave": In(1),
            "host_valid": In(1), "host_address": In(rows + array.lane_bits), "host_data": In(bits),
            "clear_valid": In(1), "clear_row": In(rows),
            "enable": Out(array.lanes),
            "row": Out(data.ArrayLayout(rows, array.beat)),
            "data": Out(data.ArrayLayout(bits, array.beat)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        slots, beat, beat_bits = array.pass_beats, array.beat, array.beat_bits
        slot_bits = slots.bit_length() - 1
        place, low = self.place, self.place.bank[:array.beat_bits]
        # Results, or with a priority of their own the host's and the clearing writes.
        other, clear = Signal(), Signal()
        rows = [Signal(array.bank_row_bits, name=f"row{k}") for k in range(4)]
        m.d.comb += [
            clear.eq(self.clear_valid if array.clearing else 0),
            other.eq(self.host_valid | clear),
            rows[0].eq(place.row), rows[1].eq(place.row + self.carry),
            rows[2].eq(rows[0] + self.plane), rows[3].eq(rows[1] + self.plane),
        ]
        other_row = Mux(clear, self.clear_row, self.host_address[array.lane_bits:])
        other_data = Mux(clear, 0, self.host_data)
        other_banks = Mux(clear, (1 << array.lanes) - 1,
                          (1 << self.host_address[:array.lane_bits])[:array.lanes])
        group_slots, mask = Signal(slot_bits + 1), Signal(max(1, slot_bits))
        m.d.comb += [group_slots.eq(slots >> self.log2_groups), mask.eq(group_slots - 1)]
        for j in range(beat):
            offset, order, source = (Signal(beat_bits, name=f"{n}{j}")
                                     for n in ("offset", "order", "source"))
            slot, wrapped = Signal(slot_bits + 1, name=f"slot{j}"), Signal(name=f"wrapped{j}")
            taken, far = Signal(name=f"taken{j}"), Signal(name=f"far{j}")
            m.d.comb += [
                offset.eq(j - low), taken.eq(self.valid & (offset <= place.count)
                         & self.real.bit_select(source, 1)),
                order.eq(self.element + offset), far.eq(self.deinterleave & order[-1]),
                source.eq(Mux(self.deinterleave, Cat(order[-1], order[:-1]), order)),
                slot.eq(place.bank[beat_bits:] + below(j, low)), wrapped.eq(slot == group_slots),
            ]
            result = Mux(far, Mux(wrapped, rows[3], rows[2]), Mux(wrapped, rows[1], rows[0]))
            m.d.sync += [
                self.row[j].eq(Mux(other, other_row, result)),
                self.data[j].eq(Mux(other, other_data, self.m[source])),
            ]
            for s in range(slots):
                here = (Const(s, max(1, slot_bits)) & mask) == (slot & mask)
                b = s * beat + j
                m.d.sync += self.enable[b].eq((other & other_banks[b]) | (taken & here))
        return m
