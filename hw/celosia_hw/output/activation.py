"""The activation function: on exact sums, and its bounds on rounded mantissas."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa import OUTPUT_BITS, ArrayConfig


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


limits_layout = data.StructLayout({
    "clamping": 1, "bound": 8, "low": signed(OUTPUT_BITS), "high": signed(OUTPUT_BITS)})
"""What a layer's mantissas may be.

clamping : by its clamp: magnitudes end at ``bound``, of as many bits as activations have, and
           those beyond it are as they should be.
low, high : smallest and largest mantissa, in the width of the layer's results.
"""


class Limits(wiring.Component):
    """The bounds of the layer's mantissas, for :class:`celosia_hw.output.requantise.Requantise`.

    Members
    -------
    clamping, wide, bound : In
        Of the layer; ``clamping`` where its exponent is the one that ``bound`` is for.
    limits : Out(limits_layout)

    Timing
    ------
    A cycle later.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({"clamping": In(1), "wide": In(1), "bound": In(8),
                          "limits": Out(limits_layout)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        narrow = self.array.activation_bits
        high = Signal(OUTPUT_BITS - 1)
        bound = Mux(self.wide, self.bound << OUTPUT_BITS - narrow, self.bound)
        largest = Mux(self.wide, (1 << OUTPUT_BITS - 1) - 1, (1 << narrow - 1) - 1)
        m.d.comb += high.eq(Mux(self.clamping, bound, largest))
        m.d.sync += [self.limits.clamping.eq(self.clamping), self.limits.bound.eq(self.bound),
                     self.limits.low.eq(-high), self.limits.high.eq(high)]
        return m
