"""Where a pass's rows begin, counted from a channel's first element."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa.array import CONTROL_BITS


class Position(wiring.Component):
    """The first element of a pass's rows: that of the band, and from tile to tile so many on as the
    tile before has written.

    Members
    -------
    position : In(16)
        Of the band.
    begin, again, moves : In(1)
        Strobe: a pass begins, with or behind the last beat of the one before. With it: its batch
        does, at ``position``; else, with ``moves``, its tile does.
    row : In(1), takes : In(2)
        A row begins behind this cycle; elements that it takes in this cycle, by one each.
    at, next : Out(16), low : Out(2), changes : Out(1)
        Of the pass; with ``changes``, what it becomes. With ``row``, the lowest bits of what it is
        then; only where a pass begins together with its first row.
    """

    def __init__(self) -> None:
        super().__init__({
            "position": In(CONTROL_BITS), "begin": In(1), "again": In(1), "moves": In(1),
            "row": In(1), "takes": In(2), "at": Out(CONTROL_BITS), "next": Out(CONTROL_BITS),
            "low": Out(2), "changes": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        before, so_far = Signal(6), Signal(6)
        first, second = self.takes
        m.d.comb += [
            so_far.eq((Cat(second, before) + Cat(second, first))[1:]),
            self.next.eq(Mux(self.again, self.position, self.at + so_far)),
            self.changes.eq(self.begin & (self.again | self.moves)),
        ]
        # The lowest bits, in few levels of gates: they are counted on.
        low, counted = Signal(2), Signal(2)
        m.d.comb += [
            counted.eq(Cat(low[0] ^ first ^ second,
                           low[1] ^ (low[0] & (first ^ second)) ^ (first & second))),
            self.low.eq(Mux(self.begin & self.moves & ~self.again, counted,
                            Mux(self.begin & self.again, self.position[:2], self.at[:2]))),
        ]
        m.d.sync += [before.eq(so_far), low.eq(Mux(self.row, self.low, counted))]
        with m.If(self.row):
            m.d.sync += before.eq(0)
        with m.If(self.changes):
            m.d.sync += self.at.eq(self.next)
        return m
