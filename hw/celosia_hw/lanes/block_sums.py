"""Products and their sums inside SB_MAC16, where one lane's sum leaves a cycle."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.mac16 import mac16
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import QUAD, Array
from celosia_spec.isa.timing import MANTISSA, SUMS

LOW = 15
"""Bits of a sum that only the block knows; its accumulators have one more."""


class BlockSums(wiring.Component):
    """What `PassSums` does, with the accumulators of SB_MAC16, which have 16 bits and no carry.

    A product lies above -2^15 and below 2^15, so each step moves a sum by at most one unit of 2^15,
    up where the mantissa is not negative, else down; and it has moved if bit 15 is another one than
    before. So logic counts these units, and bit 15 is the count's lowest bit.

    Accumulators cannot begin with a product, so they run on from pass to pass. What a lane had at
    the end of its last pass is read from a memory when its sum leaves, taken off, and replaced.
    After a reset accumulators are held at 0, while all lanes leave once. What is taken off must be
    inverted: so every other pass's lanes wait inverted, and are in the memory as they have waited.

    nextpnr has no times of the block's inside. By IceStorm's ``timings_up5k.txt`` its multiplier
    and adder take 8.7 ns together; so bit 15 is there less than 9 ns behind the clock's edge, and
    then there are a look-up table and a count's clock enable.

    Members
    -------
    those of `PassSums` of an array whose ``drain`` is 1, without ``first``: sums begin behind
    ``last``. All sums of a pass must leave; ``shift`` may go on behind the last one.

    Timing
    ------
    That of `PassSums`. Sums of different passes are ``lanes`` cycles apart at least; the first
    ``last`` comes ``lanes + 3`` cycles behind a reset at the earliest.
    """

    LATENCY = SUMS - MANTISSA

    def __init__(self, array: Array) -> None:
        self.array = array
        super().__init__({
            "valid": In(1), "last": In(1),
            "mantissas": In(data.ArrayLayout(signed(array.weight_bits), array.groups_max)),
            "x": In(data.ArrayLayout(array.activation_bits, array.lanes)), "shift": In(1),
            "sums": Out(data.ArrayLayout(signed(array.acc_bits), array.drain)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes, quads = self.array.lanes, self.array.groups_max
        valid, last = (chain(m, value, 1, name, reset_less=False)[1] for name, value in (
            ("valid", self.valid), ("last", self.valid & self.last)))
        # Two cycles behind a step its product is added. In reset it is as if a pass ended.
        hold, capture, clears = Signal(), Signal(init=1), Signal(init=1)
        m.d.sync += [hold.eq(~valid), capture.eq(last)]
        down = [delayed(m, self.mantissas[q][-1], 2, f"down{q}") for q in range(quads)]
        ends = self._products(m, hold, clears)
        found = [Cat(end, self._units(m, p, end[LOW], down[p // QUAD], hold, capture))
                 for p, end in enumerate(ends)]
        take, move, even = Signal(), Signal(), Signal()
        with m.If(capture):
            m.d.sync += even.eq(~even)
        waiting = [Signal(len(found[0]), name=f"waiting{p}", reset_less=True)
                   for p in range(lanes)]
        inverted = [new ^ even.replicate(len(new)) for new in found]
        with m.If(move):
            m.d.sync += [held.eq(Mux(capture, new, then)) for held, new, then in zip(
                waiting, inverted, [*waiting[1:], inverted[-1]], strict=True)]
        lane, begin = self._begins(m, last, take, move, waiting[0])
        held = Signal(quads, name="held", reset_less=True)
        with m.If(capture):
            m.d.sync += held.eq(Cat(down))
        self._leave(m, take, even, waiting[0], begin, held.bit_select(lane // QUAD, 1))
        loaded = Signal()
        m.d.sync += [loaded.eq(capture | clears), clears.eq(clears & ~lane[-1])]
        m.d.comb += [take.eq(self.shift | loaded), move.eq(take | capture)]
        return m

    def _products(self, m: Module, hold: Value, clears: Value) -> list[Value]:
        """Return what each lane's accumulator becomes at the end of the cycle."""
        ends = []
        for first in range(0, self.array.lanes, 2):
            a, b, sums = (Signal(bits, name=f"{name}{first}")
                          for name, bits in (("a", 16), ("b", 16), ("sums", 32)))
            for half in range(2):
                at, lane = slice(8 * half, 8 * half + 8), first + half
                m.d.comb += [a[at].eq(self.mantissas[lane // QUAD]), b[at].eq(self.x[lane])]
                ends.append(sums[16 * half:16 * half + 16])
            m.submodules[f"mac16_{first}"] = mac16(a, b, sums, hold=hold, clear=clears)
        return ends

    def _units(self, m: Module, lane: int, low: Value, down: Value, hold: Value,
               capture: Value) -> Signal:
        """Count a lane's units as they were before the product that is added in this cycle.

        low : their lowest bit as it will be. Behind ``capture`` there is no other.
        """
        units = Signal(self.array.sum_bits - LOW, name=f"units{lane}", reset_less=True)
        with m.If(capture | (~hold & (low ^ units[0]))):
            # Upwards 1 is carried behind an odd count; downwards 1 is borrowed behind an even one.
            moved = units + Cat(units[0], down.replicate(len(units) - 1))
            m.d.sync += units.eq(Cat(low, Mux(capture, 0, moved[1:len(units)])))
        return units

    def _begins(self, m: Module, last: Value, take: Value, move: Value,
                waiting: Value) -> tuple[Signal, Value]:
        """Return the lane that waits in front, and what its accumulator had when its pass began. A
        lane's top bit is 1 behind the last one.

        last : lanes wait from the next cycle but one on.
        """
        bits = (self.array.lanes - 1).bit_length()
        lane, ahead = (Signal(bits + 1, name=name) for name in ("lane", "ahead"))
        m.submodules.begins = begins = TableMemory(2 * self.array.lanes, LOW + 1)
        with m.If(move):
            m.d.sync += [lane.eq(ahead), ahead.eq(Cat((ahead[:bits] + 1)[:bits],
                                                      ahead[:bits].all() | ahead[-1]))]
        with m.If(last):
            m.d.sync += ahead.eq(0)
        m.d.comb += [begins.read.en.eq(move), begins.read.addr.eq(ahead),
                     begins.write.en.eq(take), begins.write.addr.eq(lane),
                     begins.write.data.eq(waiting[:LOW + 1])]
        return lane, begins.read.data

    def _leave(self, m: Module, take: Value, even: Value, waiting: Value, begin: Value,
               down: Value) -> None:
        """Take what was there when the pass began off its end, with what the last product did.

        even : ``begin`` is inverted, else ``waiting`` is.
        """
        low, units = waiting[:LOW + 1], waiting[LOW + 1:]
        total = Signal(signed(self.array.sum_bits), reset_less=True)
        moved, odd = low[LOW] ^ units[0], units[0] ^ ~even
        # Of the units above bit 15, 1 less is taken off where the last product has moved upwards
        # from an odd number of units, 1 more where downwards from an even one.
        more, less = moved & (odd ^ down), moved & odd & ~down
        off = Cat(more ^ even, (less ^ even).replicate(len(units) - 2))
        added = Signal(len(total) + 1)
        m.d.comb += added.eq(Cat(Const(1, 1), low, units[1:]) + Cat(even, begin, off))
        with m.If(take):
            m.d.sync += total.eq(added[1:] ^ (~even).replicate(len(total)))
        m.d.comb += self.sums[0].eq(total)
