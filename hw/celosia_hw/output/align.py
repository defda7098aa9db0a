"""Bring a bias or a residual operand to the unit of an accumulator."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.shift import RoundingShift
from celosia_spec.isa import ArrayConfig
from celosia_spec.isa.timing import Timing


class AlignBias(wiring.Component):
    """``aligned = RNE(bias * 2**shift)``, 16-bit mantissa to accumulator width.

    ``shift`` at most ``acc_bits - 17`` is exact to the bit: the compiler normalises bias mantissas
    to 15 bits and, through the smallest exponent of the input tensor, keeps the result below
    ``2**(acc_bits - 3)``.

    Timing: one bias a cycle, ``latency`` cycles.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        self.latency = Timing.of(array).align
        super().__init__({"bias": In(signed(16)), "shift": In(signed(10)),
                          "aligned": Out(signed(array.acc_bits))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        left = self.array.acc_bits - 17
        # From a right shift of left + 16 on, everything rounds to zero.
        bits = (left + 16).bit_length()
        right, amount = Signal(signed(11)), Signal(bits)
        m.d.comb += [right.eq(left - self.shift),
                     amount.eq(right[:bits] | right[bits:].any().replicate(bits))]
        bias = self.bias
        if self.deep:
            amount_held, bias = Signal(bits), Signal(signed(16), name="bias_held")
            m.d.sync += [amount_held.eq(amount), bias.eq(self.bias)]
            amount = amount_held
        shift = RoundingShift(m, Cat(Const(0, left), bias).as_signed(), amount,
                              self.array.acc_bits, "bias")
        shift.shift(3)
        shift.register()
        shift.shift()
        m.d.sync += self.aligned.eq(shift.rounded())
        return m


class AlignResidual(wiring.Component):
    """``aligned = clip(RNE(r * 2**shift))`` for a beat, to ``2**(acc_bits - 3) - 1`` in magnitude.

    Timing: one beat a cycle, ``latency`` cycles.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        self.latency = Timing.of(array).align
        super().__init__({
            "r": In(data.ArrayLayout(signed(array.activation_bits), array.beat)),
            "shift": In(signed(10)),
            "aligned": Out(data.ArrayLayout(signed(array.acc_bits), array.beat)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        limit_bits = self.array.acc_bits - 3
        limit = (1 << limit_bits) - 1
        right, amount = Signal(signed(11)), Signal(6)
        m.d.comb += [right.eq(limit_bits - self.shift),
                     amount.eq(Mux(right[-1], 0, right[:6] | right[6:-1].any().replicate(6)))]
        far, operands = Signal(), self.r
        m.d.sync += far.eq(right < 0)
        if self.deep:
            amount_held, far_held = Signal(6), Signal()
            operands = Signal.like(self.r)
            m.d.sync += [amount_held.eq(amount), far_held.eq(far), operands.eq(self.r)]
            amount, far = amount_held, far_held
        for e in range(self.array.beat):
            r = Signal(signed(self.array.activation_bits), name=f"r{e}")
            held = Signal.like(r, name=f"held{e}")
            m.d.comb += r.eq(operands[e])
            m.d.sync += held.eq(r)
            shift = RoundingShift(m, Cat(Const(0, limit_bits), r).as_signed(), amount,
                                  limit_bits + self.array.activation_bits, f"e{e}")
            shift.shift(5 if self.deep else 3)      # a deep array has the amount in a register
            shift.register()
            shift.shift()
            value = shift.rounded()
            m.d.sync += self.aligned[e].eq(
                Mux((value > limit) | (far & (held > 0)), limit,
                    Mux((value < -limit) | (far & (held < 0)), -limit, value)))
        return m
