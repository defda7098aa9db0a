"""From steps to taps: which kernel position of which block of channels a weight belongs to."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa import BLOCK_BITS, DELTA_BITS
from celosia_spec.stream.array import CONTROL_BITS, Array
from celosia_spec.stream.timing import TAP
from celosia_spec.stream.words import tap_word


class Taps(wiring.Component):
    """Add up each row's steps to column indices, and look up their taps.

    A column index has a channel of its block in its low bits, and above them a tap, counted from
    the phase's first one. Every quad of four lanes has a table and an index of its own; those of
    the quads of a group are alike.

    Members
    -------
    tile : In(1), phase : In(1)
        Strobe: taps count from the first one; from ``tap_step`` more than before.
    valid : In(1), first : In(1)
        There is a step; it is the first one of a pass.
    steps : In(quads x 8)
    tap_step : In
    write : In(1), address : In, word : In(16)
        Strobe: into the tables.
    channels : Out(quads x 4), taps : Out(quads x `tap_word`)

    Timing
    ------
    A step each cycle. ``channels`` come a cycle behind their step, ``taps`` ``LATENCY`` cycles.
    ``tile`` and ``phase`` count for the step of their own cycle. A word may be read by the step of
    the cycle in which it is written.

    Cells on the UP5K, 16 lanes: 90 LUTs, 56 flip-flops.
    """

    LATENCY = TAP

    def __init__(self, array: Array) -> None:
        self.array = array
        self.bits = (array.taps - 1).bit_length()
        quads, word = array.groups_max, layout(tap_word(array))
        super().__init__({
            "tile": In(1), "phase": In(1), "valid": In(1), "first": In(1),
            "steps": In(data.ArrayLayout(DELTA_BITS, quads)), "tap_step": In(self.bits),
            "write": In(1), "address": In(self.bits), "word": In(CONTROL_BITS),
            "channels": Out(data.ArrayLayout(BLOCK_BITS, quads)),
            "taps": Out(data.ArrayLayout(word, quads)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        base = Signal(self.bits, reset_less=True)
        with m.If(self.tile | self.phase):
            m.d.sync += base.eq(Mux(self.tile, 0, base + self.tap_step))
        for q in range(self.array.groups_max):
            index = Signal(BLOCK_BITS + self.bits, name=f"index{q}", reset_less=True)
            with m.If(self.valid):
                m.d.sync += index.eq(Mux(self.first, self.steps[q], index + self.steps[q]))
            m.submodules[f"table{q}"] = table = TableMemory(self.array.taps,
                                                            self.taps[q].shape())
            m.d.comb += [
                table.write.en.eq(self.write), table.write.addr.eq(self.address),
                table.write.data.eq(self.word), table.read.addr.eq(base + index[BLOCK_BITS:]),
                self.channels[q].eq(index[:BLOCK_BITS]), self.taps[q].eq(table.read.data),
            ]
        return m
