"""Block exponents of a layer: its input's, its residual operand's, and its output's."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.block_exponent import BlockExponent
from celosia_spec.isa import DESCRIPTOR, EXPONENT_MAX, ArrayConfig


class Exponents(wiring.Component):
    """Exponents of least significant bits for the output stage, and the rule for the output's.

    Members
    -------
    layer : In(descriptor group "control")
    word : In(16), input, residual : In(1)
        Strobes: the word is this exponent.
    check, settle : In(1)
        Strobes, two cycles apart at least: the output's exponent as far as it is known before the
        layer runs, and ``shift_base`` for it.
    top : In(signed(8)), candidate, choose : In(1)
        Strobes, one after the other: take over the block exponent of the sums; with it choose the
        output's exponent, unless it was known. ``settle`` comes behind them.
    output : Out(signed(8))
    input_lsb, residual_lsb : Out(signed(8)), shift_base : Out(signed(9)), clamping : Out(1)
        See :class:`Walks`.
    saturates : Out(1)
        Strobe: the exponent that was chosen is less than it should be.

    Timing
    ------
    Outputs change in the cycle after a strobe.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "layer": In(layout(DESCRIPTOR.groups["control"])), "word": In(16),
            **{name: In(1) for name in ("input", "residual", "check", "settle", "candidate",
                                        "choose")},
            "top": In(signed(8)), "output": Out(signed(8)), "input_lsb": Out(signed(8)),
            "residual_lsb": Out(signed(8)), "shift_base": Out(signed(9)), "clamping": Out(1),
            "saturates": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        layer, smallest = self.layer, self.layer.least_exponent
        clamp, largest = Const(0), Const(EXPONENT_MAX)
        if self.array.clamp:
            clamp, largest = layer.clamp, Mux(layer.clamp, layer.exponent, EXPONENT_MAX)
        mantissa_shift = self.array.activation_bits - 2
        candidate = Signal(signed(10))
        with m.If(self.input):
            m.d.sync += self.input_lsb.eq(self.word - mantissa_shift)
        with m.If(self.residual):
            m.d.sync += self.residual_lsb.eq(self.word - mantissa_shift)
        with m.If(self.check):
            m.d.sync += self.output.eq(Mux(layer.keep, self.input_lsb + mantissa_shift,
                                           layer.exponent))
        with m.If(self.candidate):
            m.d.sync += candidate.eq(Mux(self.top == BlockExponent.NOTHING, smallest,
                                         self.top + self.input_lsb))
        with m.If(self.choose & ~(layer.static | layer.keep)):
            above = candidate > largest
            m.d.comb += self.saturates.eq(above & ~clamp)
            m.d.sync += self.output.eq(Mux(candidate < smallest, smallest,
                                           Mux(above, largest, candidate)))
        with m.If(self.settle):
            m.d.sync += self.shift_base.eq(self.output - self.input_lsb)
            if self.array.clamp:
                m.d.sync += self.clamping.eq(clamp & (self.output == layer.exponent))
        return m
