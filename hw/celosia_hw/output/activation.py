"""The activation function, on exact sums."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa import ArrayConfig


class Activation(wiring.Component):
    """The layer's activation function, on a beat's sums in the unit of the accumulators.

    Members
    -------
    relu : In(1)
        Of the layer: a sum below zero becomes zero. Without it, sums stay.
    sums : In(beat x signed(acc_bits)), real : In(beat)
        The beat, and which of its elements are output positions; the others become zero.
    total : Out(beat x signed(acc_bits))

    Timing
    ------
    One beat a cycle, ``total`` a cycle later. Reset leaves it alone.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        beat = data.ArrayLayout(signed(array.acc_bits), array.beat)
        super().__init__({"relu": In(1), "sums": In(beat), "real": In(array.beat),
                          "total": Out(beat)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for e in range(self.array.beat):
            total = Signal(signed(self.array.acc_bits), name=f"total{e}", reset_less=True)
            m.d.sync += total.eq(Mux((self.relu & self.sums[e][-1]) | ~self.real[e],
                                     0, self.sums[e]))
            m.d.comb += self.total[e].eq(total)
        return m
