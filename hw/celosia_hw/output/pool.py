"""The maximum over the passes of a pooling window, and the largest exponent."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.carry_cell import carry, table
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.numbers import ELEMENT_BITS, EXPONENT_BITS, SIGNIFICAND_BITS

BEAT = data.ArrayLayout(ELEMENT_BITS, 2)
"""Elements of two neighbouring lanes."""


def larger(new: Value, so_far: Value, *, signed: Value, first: Value, second: Value) -> Value:
    """Return the larger one of two elements, the second of which is inverted; ``first`` and
    ``second`` say which one, whatever they are."""
    # new > so far where new + ~so far overflows.
    choice, fixed = _choice(new, so_far, signed=signed, first=first, second=second)
    return Mux(choice ^ ((new + so_far)[ELEMENT_BITS] & ~fixed), new, ~so_far)


def _choice(new: Value, so_far: Value, *, signed: Value, first: Value,
            second: Value) -> tuple[Value, Value]:
    """Return whether the first of two elements is the larger one if it is not larger as a number,
    and whether it is so anyway, else the opposite."""
    signs = [new[SIGNIFICAND_BITS - 1] & signed, ~so_far[SIGNIFICAND_BITS - 1] & signed]
    # Of two elements below zero the larger one stands for less.
    return first | (signs[1] & ~second), second | first | (signs[0] ^ signs[1])


def _packed(m: Module, new: Value, so_far: Value, **given: Value) -> Signal:
    """Do what `larger` does in cells that have a carry and a choice each."""
    more: Value = Const(0, 1)
    choice, found = Signal(), Signal(ELEMENT_BITS)
    for k, (a, b) in enumerate(zip(new, so_far, strict=True)):
        above = Signal(name=f"carry{k}")
        m.submodules[f"carry{k}"] = carry(a, b, more, above)
        m.submodules[f"choice{k}"] = table(lambda first, a, b, _: a if first else 1 - b,
                                           (choice, a, b, more), found[k])
        more = above
    chosen, fixed = _choice(new, so_far, **given)
    m.submodules.choice = table(lambda chosen, fixed, _, more: chosen ^ (more & ~fixed),
                                (chosen, fixed, Const(0, 1), more), choice)
    return found


class Pool(wiring.Component):
    """Largest elements of a tile so far, in two block memories.

    Members
    -------
    signed, wide : In(1)
        Of the layer: elements have signs; what is stored are sums, and ``sums`` goes through.
    ahead : In(1)
        A beat is done whose elements come two cycles later; whose ``held`` is there now.
    elements : In(2 x 16), first : In(1)
        Of a beat; the window begins with them.
    sums, clear : In(32), In(1)
        A sum, a cycle before elements; it becomes 0.
    keep : In(2), done : In(1)
        A cycle behind ``elements``: the lanes whose turn it was, the beat is done.
    largest : Out(2 x 16), held : Out(2 x 16)
        ``held`` is what the memories have of the beat that comes next.

    Timing
    ------
    One beat a cycle; ``largest`` a cycle behind ``elements``. All tiles have lanes / 2 beats, the
    same ones in the same order; from a beat to the same one of the next pass it takes 4 cycles.
    """

    def __init__(self, array: Array, fabric: Fabric = GENERIC) -> None:
        self.array, self.fabric = array, fabric
        super().__init__({
            "signed": In(1), "wide": In(1), "ahead": In(1), "elements": In(BEAT), "first": In(1),
            "sums": In(2 * ELEMENT_BITS), "clear": In(1), "keep": In(2), "done": In(1),
            "largest": Out(BEAT), "held": Out(BEAT),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        beats = self.array.lanes // 2
        read, write = Signal(range(beats)), Signal(range(beats))
        m.d.sync += [read.eq(read + self.ahead), write.eq(write + self.done)]
        for e in range(2):
            m.submodules[f"lane{e}"] = lane = TableMemory(
                beats, ELEMENT_BITS, block=self.fabric.lut_memory is None)
            so_far = Signal(ELEMENT_BITS, name=f"so_far{e}")    # inverted
            largest = Signal(ELEMENT_BITS, name=f"largest{e}", reset_less=True)
            m.d.comb += [
                lane.read.addr.eq(read), lane.read.en.eq(1), lane.write.addr.eq(write),
                lane.write.en.eq(self.keep[e]), lane.write.data.eq(largest),
                self.largest[e].eq(largest), self.held[e].eq(lane.read.data),
            ]
            m.d.sync += [
                so_far.eq(~Mux(self.wide, self.sums.word_select(e, ELEMENT_BITS), lane.read.data)),
                largest.eq(larger(self.elements[e], so_far, signed=self.signed, first=self.first,
                                  second=self.wide)),
            ]
            with m.If(self.clear):
                m.d.sync += so_far.eq((1 << ELEMENT_BITS) - 1)
        return m


class Largest(wiring.Component):
    """The largest exponent of what is written.

    Members
    -------
    clear : In(1)
        Strobe: begin anew.
    exponents : In(2 x 5), valid : In(2)
        Exponent fields of a beat's elements, and which of them count.
    top : Out(5)
        Exponent + 16; 0 while nothing counted.

    Timing
    ------
    ``top`` covers an element two cycles behind it.
    """

    def __init__(self) -> None:
        super().__init__({"clear": In(1), "valid": In(2), "top": Out(EXPONENT_BITS),
                          "exponents": In(data.ArrayLayout(EXPONENT_BITS, 2))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        low, high = self.exponents
        larger = Signal.like(self.top)
        m.d.sync += larger.eq(Mux(self.valid[1] & (~self.valid[0] | (high > low)), high, low))
        with m.If(~self.valid.any()):
            m.d.sync += larger.eq(0)
        with m.If(self.clear):
            m.d.sync += self.top.eq(0)
        with m.Elif(larger > self.top):
            m.d.sync += self.top.eq(larger)
        return m


class LanePool(wiring.Component):
    """Largest elements of a tile so far, where one lane leaves a cycle, in a block memory.

    fabric : what it is built of; where that has carries, of `celosia_hw.parts.carry_cell`.

    Members
    -------
    signed : In(1)
        Of the layer: elements have signs.
    lane : In(4), read : Out(16)
        Of a lane, two cycles before its element: what is kept of it, a cycle later.
    element : In(16), first : In(1), largest : Out(16)
        Of a lane, all in the same cycle; the window begins with it.
    keep : In(1), place : In(4), kept : In(16)
        Strobe: what a lane keeps, from the cycle behind ``largest`` on.

    Timing
    ------
    A lane a cycle; from a lane to the same one of the next pass it takes 4 cycles.
    """

    def __init__(self, array: Array, fabric: Fabric = GENERIC) -> None:
        self.array, self.fabric = array, fabric
        lane = In(range(array.lanes))
        super().__init__({
            "signed": In(1), "lane": lane, "read": Out(ELEMENT_BITS),
            "element": In(ELEMENT_BITS), "first": In(1), "largest": Out(ELEMENT_BITS),
            "keep": In(1), "place": lane, "kept": In(ELEMENT_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = TableMemory(
            self.array.lanes, ELEMENT_BITS, block=self.fabric.lut_memory is None)
        so_far = Signal(ELEMENT_BITS, reset_less=True)      # inverted
        m.d.comb += [
            memory.read.addr.eq(self.lane), memory.read.en.eq(1), memory.write.addr.eq(self.place),
            memory.write.en.eq(self.keep), memory.write.data.eq(self.kept),
            self.read.eq(memory.read.data),
        ]
        given: dict[str, Value] = {"signed": self.signed, "first": self.first,
                                   "second": Const(0, 1)}
        m.d.comb += self.largest.eq(_packed(m, self.element, so_far, **given)
                                    if self.fabric.carries else
                                    larger(self.element, so_far, **given))
        m.d.sync += so_far.eq(~memory.read.data)
        return m
