"""Where a pass's rows begin, counted from a channel's first element."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.stream.array import CONTROL_BITS


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
    row : In(1), count : In(2)
        A row begins; elements that it takes in this cycle.
    at, next : Out(16)
        Of the pass; with ``begin``, what it becomes.
    """

    def __init__(self) -> None:
        super().__init__({
            "position": In(CONTROL_BITS), "begin": In(1), "again": In(1), "moves": In(1),
            "row": In(1), "count": In(2), "at": Out(CONTROL_BITS), "next": Out(CONTROL_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        before, so_far = Signal(6), Signal(6)
        m.d.comb += [
            so_far.eq(Mux(self.row, 0, before) + self.count),
            self.next.eq(Mux(self.again, self.position,
                             self.at + (so_far & self.moves.replicate(len(so_far))))),
        ]
        m.d.sync += before.eq(so_far)
        with m.If(self.begin):
            m.d.sync += self.at.eq(self.next)
        return m
