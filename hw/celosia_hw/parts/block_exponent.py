"""The largest magnitude of a map, as an exponent."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa import ArrayConfig, timing


class BlockExponent(wiring.Component):
    """``top = max(floor(log2 abs a) + sw)`` over all elements seen since ``clear``.

    Members
    -------
    clear : In.    valid : In, whether the beat counts.    a : In(beat x signed(acc_bits)).
    sw : In(signed(6)), the row's weight exponent, with ``a``.
    top : Out(signed(8)); ``NOTHING`` while every element was zero.

    Timing
    ------
    ``top`` covers an element ``LATENCY`` cycles after it was presented.
    """

    LATENCY = timing.BLOCK_EXPONENT
    NOTHING = -128

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "clear": In(1), "valid": In(1),
            "a": In(data.ArrayLayout(signed(array.acc_bits), array.beat)),
            "sw": In(signed(6)), "top": Out(signed(8), init=self.NOTHING),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = self.array.acc_bits
        # The leading one of a union of magnitudes is that of the largest. -a is ~(a - 1).
        union = 0
        for e in range(self.array.beat):
            less, sign = Signal(bits, name=f"less{e}"), self.a[e][-1].replicate(bits)
            m.d.comb += less.eq(self.a[e] + sign.as_signed())
            union = union | (less ^ sign)
        held, sw = Signal(bits, reset_less=True), Signal(signed(6), reset_less=True)
        m.d.sync += [held.eq(Mux(self.valid, union, 0)), sw.eq(self.sw)]
        log, empty, sw_held = Signal(5), Signal(init=1), Signal(signed(6), reset_less=True)
        m.d.sync += [log.eq(self._leading_one(m, held)), empty.eq(held == 0), sw_held.eq(sw)]
        candidate = Signal(signed(8), init=self.NOTHING)
        m.d.sync += candidate.eq(Mux(empty, self.NOTHING, log + sw_held))
        with m.If(self.clear):
            m.d.sync += [self.top.eq(self.NOTHING), candidate.eq(self.NOTHING), empty.eq(1),
                         held.eq(0)]
        with m.Elif(candidate > self.top):
            m.d.sync += self.top.eq(candidate)
        return m

    def _leading_one(self, m: Module, value: Value) -> Value:
        """Return the position of the highest one bit: the nibble by halving, then the bit in it."""
        nibbles = [value[4 * k:4 * k + 4] for k in range(len(value) // 4)]
        nibbles += [Const(0, 4)] * (8 - len(nibbles))
        filled = [Signal(name=f"filled{k}") for k in range(8)]
        m.d.comb += [f.eq(n.any()) for f, n in zip(filled, nibbles, strict=True)]
        position: list[Value] = []
        while len(nibbles) > 1:
            half = len(nibbles) // 2
            upper = Signal(name=f"upper{half}")
            m.d.comb += upper.eq(Cat(filled[half:]).any())
            nibbles = [Mux(upper, nibbles[k + half], nibbles[k]) for k in range(half)]
            filled = [Mux(upper, filled[k + half], filled[k]) for k in range(half)]
            position.insert(0, upper)
        n = Signal(4)
        m.d.comb += n.eq(nibbles[0])
        return Cat(n[3] | (n[1] & ~n[2]), n[3] | n[2], *position)
