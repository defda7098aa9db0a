"""Sums to elements of a stored map, rounded to odd."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa.numbers import ELEMENT_BITS, EXPONENT_BITS, SIGNIFICAND_BITS
from celosia_spec.isa.timing import NORMALISE


class Unit(wiring.Signature):
    """``unit + W + UNIT_MARGIN`` of a row, which is how far a sum may move to the left, seen from
    who knows it.

    room : a cycle behind a sum.   near : of it bits 1 and 2 two cycles behind.
    last : three cycles behind.
    """

    def __init__(self) -> None:
        super().__init__({"room": Out(7), "near": Out(2), "last": Out(7)})


class Normalise(wiring.Component):
    """``element = to_odd(sum, unit)`` (`celosia_spec.floats`): normalise, and mark what is cut off.

    Parameters
    ----------
    acc_bits : int
        Width W of a sum, 24 or 32.

    Members
    -------
    sum : In(signed(acc_bits))
        Its most negative value never occurs. Not negative where ``signed`` is 0, after ``relu``.
    relu : In(1)
        Sums below zero become zero.
    unit : In(Unit)
        Of the sum's row.
    signed : In(1)
        Whether elements have a sign.
    element : Out(16)

    Timing
    ------
    One sum a cycle, ``LATENCY`` cycles. ``signed`` and ``relu`` are stable while sums are inside.
    """

    LATENCY = NORMALISE

    def __init__(self, acc_bits: int = 24) -> None:
        self.acc_bits = acc_bits
        super().__init__({"sum": In(signed(acc_bits)), "unit": In(Unit()), "relu": In(1),
                          "signed": In(1), "element": Out(ELEMENT_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = self.acc_bits - 1
        sign = self.sum[-1].replicate(bits)
        # -a is ~(a - 1).
        less, negative = self._held(m, "less", (self.sum + sign.as_signed())[:bits], self.sum[-1])
        with m.If(self.relu & self.sum[-1]):
            m.d.sync += [less.eq(0), negative.eq(0)]
        sixteen, eight, value, free = self._far(m, less, negative.replicate(bits))
        value, sticky = self._cut(value, 7)
        low, sticky, high, free, *moves, negative = self._held(
            m, "far", value[:16 - bits], sticky, value[16 - bits:], free, eight, sixteen, negative)
        with m.If(sixteen):             # nothing is left below
            m.d.sync += [low.eq(0), sticky.eq(0)]
        four, two, value, free = self._near(m, Cat(low, high), free)
        value, sticky, free, *moves, negative = self._held(
            m, "near", value, sticky, free, two, four, *moves, negative)
        value, lost = self._cut(value, 1)
        one = ~value[-1] & (free | self.unit.last[0])
        value, sticky, exponent, negative = self._held(
            m, "last", Mux(one, value << 1, value)[:len(value)], sticky | lost,
            self.unit.last - Cat(one, *moves), negative)
        m.d.sync += self.element.eq(self._element(m, value, sticky, negative, exponent))
        return m

    def _held(self, m: Module, name: str, *values: Value) -> tuple[Signal, ...]:
        held = [Signal(len(value), name=f"{name}{k}", reset_less=True)
                for k, value in enumerate(values)]
        m.d.sync += [h.eq(value) for h, value in zip(held, values, strict=True)]
        return tuple(held)

    def _far(self, m: Module, less: Value, negative: Value) -> tuple[Value, Value, Value, Value]:
        """Move a value left by 16 and by 8, each if only zeros fall off and the room allows it.
        Return whether it moved, the value, and whether there is room for all further moves: a bit
        of it that is not used leaves more than they take. The value's lowest 16 bits are those of
        one that has not moved by 16.

        less : the value, inverted where ``negative``, whose bits are all the same.
        """
        value, bits = less ^ negative, len(less)
        room, free = self.unit.room[3:5], self.unit.room[5:].any()
        full, sixteen, eight = Signal(2), Signal(), Signal()
        then = ~value[bits - 24:bits - 16].any() if bits >= 24 else Const(0, 1)
        by, low = Signal(bits - 16), value[:16]
        m.d.comb += [
            full.eq(Cat(value[bits - 16:bits - 8].any(), value[bits - 8:].any())),
            sixteen.eq(~full.any() & (free | room[1])),
            eight.eq(Mux(sixteen, then & (free | room[0]), ~full[1] & (free | room.any()))),
            by.eq(Mux(sixteen, less[:bits - 16], less[16:]) ^ negative[16:]),
        ]
        if bits >= 24:                  # else it does not move by both
            low = low & ~sixteen.replicate(16)
        return (sixteen, eight, Mux(eight, (Cat(low, by) << 8)[:bits], Cat(value[:16], by)),
                free | (room[1] & ~sixteen) | (room[0] & ~eight))

    def _near(self, m: Module, value: Value, free: Value) -> tuple[Value, Value, Value, Value]:
        """Likewise by 4 and by 2."""
        room, bits, four, two = self.unit.near, len(value), Signal(), Signal()
        full = [value[bits - 2 * k - 2:bits - 2 * k].any() for k in range(3)]
        m.d.comb += [
            four.eq(~full[0] & ~full[1] & (free | room[1])),
            two.eq(Mux(four, ~full[2] & (free | room[0]), ~full[0] & (free | room.any()))),
        ]
        by = Mux(four, value << 4, value)[:bits]
        return (four, two, Mux(two, by << 2, by)[:bits],
                free | (room[1] & (full[0] | full[1])) | (room[0] & Mux(four, full[2], full[0])))

    def _cut(self, value: Value, left: int) -> tuple[Value, Value]:
        """Return a value without the bits that will be cut off, if it still moves left by at most
        ``left``, and whether one of them is 1."""
        cut = len(value) - SIGNIFICAND_BITS - left
        return value[cut:], value[:cut].any()

    def _element(self, m: Module, value: Value, sticky: Value, sign: Value,
                 exponent: Value) -> Value:
        over = Signal()
        field, significand = Signal(EXPONENT_BITS), Signal(SIGNIFICAND_BITS)
        cut = len(value) - SIGNIFICAND_BITS
        m.d.comb += [
            over.eq(value[-1] & exponent[EXPONENT_BITS:].any()),
            # Without its top bit a value is 0, or lies below 2^-16.
            field.eq((exponent[:EXPONENT_BITS] & value[-1].replicate(EXPONENT_BITS))
                     | over.replicate(EXPONENT_BITS)),
            significand.eq(Cat(value[cut] | value[:cut].any() | sticky, value[cut + 1:])
                           | over.replicate(SIGNIFICAND_BITS)),
        ]
        with_sign = Cat(significand[1] | significand[0], significand[2:], sign)
        return Cat(Mux(self.signed, with_sign, significand), field)
