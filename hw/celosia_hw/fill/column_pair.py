"""Where the elements of half a word go in the banks."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.fill.columns import Place, enables
from celosia_hw.layouts import layout
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import PLACE


class ColumnPair(wiring.Component):
    """Spread two neighbouring elements of main memory over two banks, one of them with an even
    number, into every group's copy.

    Bank b takes its row and its code from column b mod 2. Of two places that move over the banks,
    A takes elements with even numbers, and B odd ones; with ``apart`` A takes all.

    Parameters
    ----------
    array : Array
        One that fills two elements a cycle.

    Members
    -------
    elements : In(2)
        Those that are written.
    single, apart : In(1), masks : In(log2 lanes)
        Of the record. single: a place moves on by one bank for each of its elements, else by two;
        so it does with ``apart``. masks: bits of a bank's number that tell groups apart.
    move, move_a, move_b, set, rows_ready, row, enable
        See `Columns`; two columns have a row.
    turn : Out(1)
        Column 0 takes element 1, and column 1 element 0.

    Timing
    ------
    That of `Columns`.
    """

    LATENCY = 2

    def __init__(self, array: Array) -> None:
        self.array = array
        self.row_bits = (array.bank_rows - 1).bit_length()
        self.bank_bits = array.lanes.bit_length() - 1
        super().__init__({
            "elements": In(2), "single": In(1), "apart": In(1), "masks": In(self.bank_bits),
            "move": In(layout(PLACE)), "move_a": In(1),
            "move_b": In(1), "set": In(1), "rows_ready": In(1),
            "row": Out(data.ArrayLayout(self.row_bits, 2)), "enable": Out(array.lanes),
            "turn": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.a, m.submodules.b = a, b = Place(self.array), Place(self.array)
        step = Signal(self.row_bits, reset_less=True)
        banks = Signal(self.bank_bits, reset_less=True)
        ready = Signal()
        m.d.sync += ready.eq(self.rows_ready)
        with m.If(self.move_a | self.move_b | self.rows_ready):
            m.d.sync += [step.eq(self.move.row), banks.eq(self.move.bank)]
        odd = Signal(reset_less=True)
        m.d.sync += odd.eq(self.elements[1] & self.apart)
        takes: list[Signal] = []
        for place, strobe, counts in (
                (a, self.move_a, self.elements[0] | (self.elements[1] & self.apart)),
                (b, self.move_b, self.elements[1] & ~self.apart)):
            here, take = Signal(name=f"moved{len(takes)}"), Signal(name=f"takes{len(takes)}")
            m.d.sync += [here.eq(strobe), take.eq(counts)]
            m.d.comb += [
                place.count.eq(Cat(take & self.single, take & ~self.single)), place.here.eq(here),
                place.set.eq(self.set), place.masks.eq(self.masks), place.step.eq(step),
                place.banks.eq(banks), place.rows_ready.eq(ready)]
            takes.append(take)
        # Where both take an element, their banks' parities differ.
        swap = Signal()
        m.d.comb += swap.eq(Mux(takes[0], a.bank[0], ~b.bank[0]))
        m.d.sync += self.turn.eq(swap ^ odd)
        for j, takes_b in enumerate((swap, ~swap)):
            quad, written = Signal(self.bank_bits - 1, name=f"quad{j}"), Signal(name=f"written{j}")
            m.d.comb += [quad.eq(Mux(takes_b, b.bank[1:], a.bank[1:])),
                         written.eq(Mux(takes_b, takes[1], takes[0]))]
            m.d.sync += self.row[j].eq(Mux(takes_b, b.row, a.row))
            m.d.sync += [self.enable[2 * number + j].eq(enable) for number, enable in enumerate(
                enables(quad, self.masks[1:], written))]
        return m
