"""Residual operands, aligned to the sums of a row."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Align(wiring.Component):
    """``aligned = clip(RNE(m * 2**shift))`` to 2^(W - 3) - 1 in magnitude.

    Members
    -------
    code : In(bits), signed : In(1)
        m, of a tensor with signs moved up by 2^(bits - 1) (`Finisher`).
    shift : In(signed(8)), right, left : In(1)
        Strobes: ``shift`` is that of the mantissas from the next cycle on, or from the one behind
        that; it comes with both.
    aligned : Out(signed(W - 2))

    Timing
    ------
    One mantissa a cycle, ``LATENCY`` cycles. ``right`` in the cycle before a row's first mantissa,
    ``left`` in the one behind, not before the last mantissa of the row before has left for two.
    """

    LATENCY = 4

    def __init__(self, bits: int, acc_bits: int) -> None:
        self.bits, self.acc_bits = bits, acc_bits
        super().__init__({"code": In(bits), "signed": In(1), "shift": In(signed(8)),
                          "right": In(1), "left": In(1), "aligned": Out(signed(acc_bits - 2))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        right, left = Signal(4, reset_less=True), Signal(5, reset_less=True)
        back, negative = Signal(8), self.shift[-1]
        m.d.comb += back.eq(-self.shift)
        # Eleven places to the right all rounds to zero; 31 to the left all but zero is too large.
        with m.If(self.right):
            m.d.sync += right.eq((back[:4] | back[4:].any().replicate(4)) & negative.replicate(4))
        with m.If(self.left):
            m.d.sync += left.eq((self.shift[:5] | self.shift[5:7].any().replicate(5))
                                & ~negative.replicate(5))
        rounded = self._rounded(m, right)
        value, over = self._moved(m, rounded, left)
        # The one value that is too large by one unit is a power of two.
        limit = self.acc_bits - 3
        least = value[-1] & ~value[:limit].any()
        sign = value[-1]
        m.d.comb += self.aligned.eq(Mux(
            over[0], Cat((~over[1]).replicate(limit) | Cat(over[1], 0), over[1]),
            Cat(value[0] | least, value[1:limit], sign)))
        return m

    def _rounded(self, m: Module, amount: Value) -> Value:
        """Move to the right, and round to nearest even."""
        top = self.code[-1] ^ self.signed
        value: Value = Cat(self.code[:-1], top, top & self.signed).as_signed()
        guard: Value = Cat(0)
        sticky: Value = Cat(0).any()
        width = len(value)
        for k in reversed(range(4)):
            distance = 1 << k
            parts = Cat(guard, value).as_signed()
            moved = Signal(signed(width + 1), name=f"right{distance}")
            lost = Signal(name=f"lost{distance}")
            m.d.comb += [moved.eq(Mux(amount[k], parts >> distance, parts)),
                         lost.eq(sticky | (amount[k] & parts[:distance].any()))]
            guard, value, sticky = moved[0], moved[1:].as_signed(), lost
        held, half = Signal(signed(width), reset_less=True), Signal(reset_less=True)
        rest, result = Signal(reset_less=True), Signal(signed(width), reset_less=True)
        m.d.sync += [held.eq(value), half.eq(guard), rest.eq(sticky),
                     result.eq(held + (half & (rest | held[0])))]
        return result

    def _moved(self, m: Module, value: Value, amount: Value) -> tuple[Signal, Signal]:
        """Move to the left; return the value, and whether it is too large with its sign."""
        width = self.acc_bits - 2
        for distance in (1, 2, 4):
            wider = Signal(signed(min(len(value) + distance, width)), name=f"left{distance}")
            m.d.comb += wider.eq(Mux(amount[distance.bit_length() - 1], value << distance, value))
            value = wider
        held, rest = Signal(signed(len(value)), reset_less=True), Signal(2, reset_less=True)
        m.d.sync += [held.eq(value), rest.eq(amount[3:])]
        over: Value = Cat(0).any()
        value = held
        for k, distance in enumerate((8, 16)):
            kept = max(width - distance, 1)             # bits that stay, their sign with them
            beyond = value[kept - 1:]
            lost = Signal(name=f"over{distance}")
            wider = Signal(signed(width), name=f"left{distance}")
            m.d.comb += [
                lost.eq(over | (rest[k] & beyond.any() & ~beyond.all())),
                wider.eq(Mux(rest[k], value << distance, value)),
            ]
            value, over = wider, lost
        moved, flags = Signal(signed(width), reset_less=True), Signal(2, reset_less=True)
        m.d.sync += [moved.eq(value), flags.eq(Cat(over, held[-1]))]
        return moved, flags
