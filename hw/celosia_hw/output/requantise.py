"""The one rounding: exact accumulators into mantissas of a block."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.output.activation import limits_layout
from celosia_hw.parts.compare import at_least
from celosia_hw.parts.shift import RoundingShift
from celosia_spec.isa import OUTPUT_BITS, ArrayConfig
from celosia_spec.isa.timing import Timing


class Requantise(wiring.Component):
    """``m = clip(RNE(a * 2**(L - 2 - shift)))`` for the elements of one beat.

    ``shift`` is the block exponent of the result minus the exponent of the accumulator's unit
    (numerics, section 4); ``L`` is ``OUTPUT_BITS`` for the first ``wide_elements`` elements when
    ``wide``, else ``activation_bits``.

    Members
    -------
    a : In(beat x signed(acc_bits)).    wide : In(1), stable.
    shift : In(signed(10))
        One cycle ahead of ``a``.
    limits : In(limits_layout)
        What mantissas are clipped to, where the array has a clamp.
    m : Out(beat x signed(OUTPUT_BITS))
        Mantissas, at most ``2**(L-1) - 1`` in magnitude.
    clipped : Out(beat)
        The element was changed by clipping, not by a clamp.

    Timing
    ------
    One beat a cycle, results ``latency`` cycles later.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        self.latency = Timing.of(array).requantise
        super().__init__({
            "a": In(data.ArrayLayout(signed(array.acc_bits), array.beat)),
            "shift": In(signed(10)), "wide": In(1),
            "m": Out(data.ArrayLayout(signed(OUTPUT_BITS), array.beat)),
            "clipped": Out(array.beat),
            **({"limits": In(limits_layout)} if array.clamp else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        acc_bits = self.array.acc_bits
        # Bit i is set where an accumulator bit i that differs from the sign means overflow.
        over = Signal(acc_bits, reset_less=True)
        negative, large = self.shift[-1], self.shift[5:-1].any()
        m.d.sync += over.eq(Cat(negative | (~large & ~at_least(self.shift[:5], i))
                                for i in range(acc_bits)))
        for e in range(self.array.beat):
            wide = self.wide if e < self.array.wide_elements else None
            a = Signal(signed(acc_bits), name=f"a{e}")
            overflow = Signal(name=f"overflow{e}")
            m.d.comb += [
                a.eq(self.a[e]),
                overflow.eq((over & (a ^ a[-1].replicate(acc_bits))).any() | (over[0] & a[-1])),
            ]
            self._element(m, e, a, overflow, wide)
        return m

    def _element(self, m: Module, e: int, a: Value, overflow: Value,
                 wide: Value | None) -> None:
        """Shift, round and clip one element; ``wide`` is None where it is never wide."""
        narrow = self.array.activation_bits
        bits = narrow if wide is None else OUTPUT_BITS
        extra = 0 if wide is None else Mux(wide, 0, OUTPUT_BITS - narrow)
        # The accumulator gets bits - 2 bits below its unit and is shifted right only. From a
        # shift of acc_bits + bits - 1 on, everything rounds to zero.
        amount_bits = (len(a) + bits - 1).bit_length()
        right = Signal(signed(11), name=f"right{e}")
        amount = Signal(amount_bits, name=f"amount{e}", reset_less=True)
        m.d.comb += right.eq(self.shift + extra)
        m.d.sync += amount.eq(Mux(right[-1], 0, right[:amount_bits]
                                  | right[amount_bits:-1].any().replicate(amount_bits)))
        shift = RoundingShift(m, Cat(Const(0, bits - 2), a).as_signed(), amount, bits + 1, f"e{e}")
        held = Cat(overflow, a[-1], *([] if wide is None else [wide]))
        for k in range(2 * self.deep):
            shift.shift(3)
            shift.register()
            after = Signal(len(held), name=f"state{e}_{k}")
            m.d.sync += after.eq(held)
            held = after
        shift.shift()
        rounded = Signal(signed(bits + 1), name=f"rounded{e}", reset_less=True)
        after = Signal(len(held), name=f"state{e}")
        m.d.sync += [rounded.eq(shift.rounded()), after.eq(held)]
        self._clip(m, e, rounded, after[0], after[1], None if wide is None else after[2])

    def _clip(self, m: Module, e: int, rounded: Value, overflow: Value, sign: Value,
              wide: Value | None) -> None:
        """Clip to the symmetric range. Without overflow, ``abs(rounded) <= 2**(L-1)``: only that
        value and its negative clip."""
        narrow = self.array.activation_bits

        def edge(bits: int) -> Value:
            return (rounded[bits - 1:bits + 1] != rounded[bits].replicate(2)) | (
                rounded[:bits + 1] == (1 << bits - 1 | 1 << bits))

        limits = {bits: (1 << bits - 1) - 1 for bits in (narrow, OUTPUT_BITS)}
        limit, at_edge = limits[narrow], edge(narrow)
        if wide is not None:
            limit = Mux(wide, limits[OUTPUT_BITS], limit)
            at_edge = Mux(wide, edge(OUTPUT_BITS), at_edge)
        clip = Signal(name=f"clip{e}")
        if self.array.clamp:
            limits = self.limits
            m.d.comb += [
                clip.eq(overflow | at_edge | (limits.clamping & self._reached(rounded, wide))),
                self.m[e].eq(Mux(clip, Mux(sign, limits.low, limits.high), rounded)),
                self.clipped[e].eq(clip & ~limits.clamping),
            ]
        else:
            m.d.comb += [
                clip.eq(overflow | at_edge),
                self.m[e].eq(Mux(clip, Mux(sign, -limit, limit), rounded)),
                self.clipped[e].eq(clip),
            ]

    def _reached(self, rounded: Value, wide: Value | None) -> Value:
        """Say whether a mantissa is at the clamp's bound or beyond it: a negative one, whose
        complement is a step nearer to 0, beyond it."""
        narrow = self.array.activation_bits
        size = rounded ^ rounded[-1].replicate(len(rounded))
        size = size[:narrow - 1] if wide is None else Mux(
            wide, size[OUTPUT_BITS - narrow:OUTPUT_BITS - 1], size[:narrow - 1])
        return size >= self.limits.bound
