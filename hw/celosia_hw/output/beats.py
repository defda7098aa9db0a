"""The beats of a row, and the lanes of a pass."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa.array import Array


class Beats(wiring.Component):
    """Count the beats of a row: two lanes a cycle, or each of them in a cycle of its own.

    Members
    -------
    log2_groups : In(2), single : In(1)
        Row groups; a beat takes two cycles, one a lane. Stable while a row has beats, and two
        cycles before.
    row : In(1)
        Strobe in a row's first cycle.
    active, odd, done, last : Out(1)
        In each of its cycles: ``active``; with ``single``, the second lane's turn; the beat is
        done; the row is.

    Timing
    ------
    Outputs belong to the same cycle. ``row`` may follow ``last``.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        super().__init__({"log2_groups": In(2), "single": In(1), "row": In(1), "active": Out(1),
                          "odd": Out(1), "done": Out(1), "last": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        most = self.array.lanes - 1
        bits = most.bit_length()
        on, at, full = Signal(), Signal(bits), Signal(bits)
        # A group's lanes less one, and half of it where a beat is one cycle.
        m.d.sync += full.eq(Mux(self.single, most, most >> 1) >> self.log2_groups)
        m.d.comb += [
            self.active.eq(on | self.row), self.odd.eq(self.single & at[0] & on),
            self.done.eq(self.active & (self.odd | ~self.single)),
            self.last.eq(on & (at == full)),
        ]
        m.d.sync += [on.eq(self.active & ~self.last), at.eq(at + 1)]
        with m.If(self.row):
            m.d.sync += at.eq(1)
        return m


class Lanes(wiring.Component):
    """Count the lanes of passes, where one leaves a cycle.

    Members
    -------
    log2_groups : In(2)
        Row groups. Stable while a row has lanes.
    row : In(1)
        Strobe in a row's first cycle.
    active, last : Out(1), lane : Out(4)
        In each of its cycles: ``active``; it is the row's last lane; which one of its pass.

    Timing
    ------
    Outputs belong to the same cycle. ``row`` may follow ``last``; a pass has all its rows.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        super().__init__({"log2_groups": In(2), "row": In(1), "active": Out(1), "last": Out(1),
                          "lane": Out(range(array.lanes))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        on, lane = Signal(), self.lane
        m.d.comb += [self.active.eq(on | self.row), self.last.eq(
            (lane | Const(self.array.lanes - 1) << len(lane) >> self.log2_groups)[:len(lane)]
            .all())]
        m.d.sync += [on.eq(self.active & ~self.last), lane.eq(lane + self.active)]
        return m
