"""Elements to main memory where one lane leaves a cycle: two elements at a time."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.output.control import Write
from celosia_spec.isa.array import CONTROL_BITS, Array
from celosia_spec.isa.numbers import ELEMENT_BITS


class LaneWriter(wiring.Component):
    """Pair the elements of a row's lanes, and write each pair: half a word of main memory.

    Elements of lanes that are written take consecutive places of a row, from the pass's position
    on. A half is written when its upper element is there, or the row ends.

    Parameters
    ----------
    array : Array

    Members
    -------
    wide, clear : In(1)
        Of the layer: what is stored are sums, of 32 bits; in a sum's cycle: it becomes 0.
    position : In(16), fresh : In(1)
        Of the band: first element of a row that is written. Strobe, in the cycle before a pass's
        first lane: it begins there; else it begins where the rows of the pass before ended.
    row : In(1), element : In(2), word : In
        Strobe, with a row's first lane: its channel begins with ``element`` of ``word``.
    takes, counts, puts, last : In(1)
        In a lane's cycle: it has a place in its row; with that, and the pass's rows end here: it is
        the pass's last row; it is written; it is the row's last one.
    larger, sums : In(16), In(32)
        In a lane's cycle: its element; its sum.
    write : Out(Write)
        Registers.
    stored : Out(16)
        The last element, whether it is written or not.

    Timing
    ------
    A lane a cycle. A half is written in the cycle behind its upper element, or behind the row's
    last lane.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        self.word_bits = array.main_bits
        super().__init__({
            "wide": In(1), "clear": In(1), "position": In(CONTROL_BITS), "fresh": In(1),
            "row": In(1), "element": In(2), "word": In(self.word_bits), "takes": In(1),
            "counts": In(1), "puts": In(1), "last": In(1), "larger": In(ELEMENT_BITS),
            "sums": In(2 * ELEMENT_BITS), "write": Out(Write(array)),
            "stored": Out(ELEMENT_BITS),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        at, write = self._position(m), self.write
        slot, kept, begin = Signal(2), Signal(2), Signal(3)
        m.d.comb += [begin.eq(at[:2] + self.element), slot.eq(Mux(self.row, begin[:2], kept))]
        m.d.sync += kept.eq(slot + Mux(self.wide, self.takes << 1, self.takes))
        upper, held, puts = Signal(), Signal(), self.puts
        m.d.comb += [upper.eq(slot[0] | self.wide),
                     held.eq((write.enable[0] | write.enable[2]) & ~write.request)]
        m.d.sync += write.request.eq((puts & upper) | (self.last & (puts | held)))
        for half in range(2):
            here, enable = slot[1] == half, write.enable[2 * half:]
            m.d.sync += [
                enable[0].eq((puts & here & ~slot[0]) | (enable[0] & ~write.request)),
                enable[1].eq(puts & here & upper),
            ]
        with m.If(~slot[0]):
            m.d.sync += write.data[:ELEMENT_BITS].eq(Mux(
                self.wide, self.sums[:ELEMENT_BITS], self.larger))
        m.d.sync += write.data[ELEMENT_BITS:].eq(Mux(
            self.wide, self.sums[ELEMENT_BITS:], self.larger))
        with m.If(self.clear):
            m.d.sync += write.data.eq(0)
        m.d.comb += self.stored.eq(write.data[ELEMENT_BITS:])
        # Behind the last element of a word, the next one's come. The row's load stands as a
        # summand's bits, so that it goes into the adder's own look-up tables.
        onward = write.enable[2:].any() & write.request
        m.d.sync += write.address.eq(Mux(
            self.row, self.word + at[2:] + begin[2],
            write.address + self.row.replicate(self.word_bits) + onward))
        return m

    def _position(self, m: Module) -> Signal:
        """Return the first element of the pass's rows, counted from a channel's first; in the last
        row of a pass it counts on."""
        at, fresh = Signal(CONTROL_BITS), self.fresh
        more = self.takes & self.counts
        carry = more & (at[0] | self.wide)
        with m.If(fresh | (more & ~self.wide)):
            m.d.sync += at[0].eq(Mux(fresh, self.position[0], ~at[0]))
        with m.If(fresh | carry):
            m.d.sync += at[1:].eq(Mux(fresh, self.position[1:], Cat(
                at[1:] + fresh.replicate(CONTROL_BITS - 1) + 1)[:CONTROL_BITS - 1]))
        return at
