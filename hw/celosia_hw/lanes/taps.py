"""From steps to taps: which kernel position of which block of channels a weight belongs to."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import CONTROL_BITS, Array
from celosia_spec.isa.numbers import DELTA_BITS
from celosia_spec.isa.timing import TAP
from celosia_spec.isa.words import BLOCK_BITS, tap_word


class Taps(wiring.Component):
    """Add up each row's steps to column indices, and look up their taps.

    A column index has a channel of its block in its low bits, and above them a tap; a phase's
    first one begins a group. Every quad of four lanes has a table and an index of its own; those of
    the quads of a group are alike.

    Members
    -------
    tile : In(1)
        Strobe: taps of the next pass count from the first one.
    valid : In(1), first : In(1)
        There is a step; it is the first one of a pass, from ``steps`` on. Taps of the pass behind
        it count from ``group_step`` groups more.
    steps : In(quads x 8)
    group_step : In
        Groups of `TAP_GROUP` taps.
    write : In(1), address : In, word : In(16)
        Strobe: into the tables.
    channels : Out(quads x 4), taps : Out(quads x `tap_word`)

    Timing
    ------
    A step each cycle. ``channels`` come a cycle behind their step, ``taps`` ``LATENCY`` cycles.
    ``tile`` counts for the step of its own cycle, which then is the first one of a pass. A word may
    be read by the step of the cycle in which it is written.
    """

    LATENCY = TAP

    def __init__(self, array: Array) -> None:
        self.array = array
        self.bits = (array.taps - 1).bit_length()
        self.group_bits = BLOCK_BITS + self.bits - DELTA_BITS
        quads, word = array.groups_max, layout(tap_word(array))
        super().__init__({
            "tile": In(1), "valid": In(1), "first": In(1),
            "steps": In(data.ArrayLayout(DELTA_BITS, quads)), "group_step": In(self.group_bits),
            "write": In(1), "address": In(self.bits), "word": In(CONTROL_BITS),
            "channels": Out(data.ArrayLayout(BLOCK_BITS, quads)),
            "taps": Out(data.ArrayLayout(word, quads)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        group, begins = Signal(self.group_bits, reset_less=True), self.valid & self.first
        with m.If(begins | self.tile):
            m.d.sync += group.eq(Mux(self.tile, self.group_step, group + self.group_step))
        with m.If(self.tile & ~begins):
            m.d.sync += group.eq(0)
        # A first step reaches no further than a group, so its group stands above it.
        above = Signal.like(group)
        m.d.comb += above.eq(Mux(self.first & ~self.tile, group, 0))
        for q in range(self.array.groups_max):
            index = Signal(BLOCK_BITS + self.bits, name=f"index{q}", reset_less=True)
            further = Cat(self.steps[q], above)
            with m.If(self.valid):
                m.d.sync += index.eq(Mux(self.first, further, index + further))
            m.submodules[f"table{q}"] = table = TableMemory(self.array.taps,
                                                            self.taps[q].shape())
            m.d.comb += [
                table.write.en.eq(self.write), table.write.addr.eq(self.address),
                table.write.data.eq(self.word), table.read.addr.eq(index[BLOCK_BITS:]),
                self.channels[q].eq(index[:BLOCK_BITS]), self.taps[q].eq(table.read.data),
            ]
        return m
