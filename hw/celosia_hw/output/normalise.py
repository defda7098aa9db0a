"""Sums to elements of a stored map, rounded to odd."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa import ELEMENT_BITS, SIGNIFICAND_BITS


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
    room : In(7)
        ``unit + W + UNIT_MARGIN``, of the row: how far a sum may move to the left.
    signed : In(1)
        Whether elements have a sign.
    element : Out(16)

    Timing
    ------
    One sum a cycle, ``LATENCY`` cycles. ``signed`` and ``relu`` are stable while sums are inside.
    """

    LATENCY = 5

    def __init__(self, acc_bits: int = 24) -> None:
        self.acc_bits = acc_bits
        super().__init__({"sum": In(signed(acc_bits)), "room": In(7), "relu": In(1),
                          "signed": In(1), "element": Out(ELEMENT_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = self.acc_bits - 1
        sign = self.sum[-1].replicate(bits)
        # -a is ~(a - 1). Of the room, a move asks its own bit, and whether a larger one is left.
        less, negative, *rest = self._held(m, "less", (self.sum + sign.as_signed())[:bits],
                                           self.sum[-1], self.room, self.room[5:].any())
        with m.If(self.relu & self.sum[-1]):
            m.d.sync += [less.eq(0), negative.eq(0)]
        state: tuple[Value, ...] = (less ^ negative.replicate(bits), negative, *rest)
        self.less = less
        for name, distances in (("far", (16, 8)), ("near", (4, 2)), ("last", (1,))):
            for distance in distances:
                state = self._left(m, distance, *state)
            state = self._held(m, name, *state)
        m.d.sync += self.element.eq(self._element(m, *state))
        return m

    def _held(self, m: Module, name: str, *values: Value) -> tuple[Signal, ...]:
        held = [Signal(len(value), name=f"{name}{k}", reset_less=True)
                for k, value in enumerate(values)]
        m.d.sync += [h.eq(value) for h, value in zip(held, values, strict=True)]
        return tuple(held)

    def _empty(self, less: Value, negative: Value) -> Value:
        """Return whether a magnitude's bits are 0."""
        return Mux(negative, less.all(), ~less.any())

    def _left(self, m: Module, distance: int, value: Value, sign: Value, room: Value, free: Value,
              *moves: Value) -> tuple[Value, ...]:
        """Move a value left by ``distance`` if only zeros fall off and the room allows it.

        A bit of the room that is not used leaves more than all smaller distances together.
        """
        bit = room[distance.bit_length() - 1]
        empty, move = Signal(name=f"empty{distance}"), Signal(name=f"move{distance}")
        after = Signal(len(value), name=f"by{distance}")
        if distance == 8:
            # Found beside the move by 16, which takes as long.
            sixteen, = moves
            m.d.comb += empty.eq(Mux(sixteen, self._empty(self.less[-24:-16], sign),
                                     self._empty(self.less[-8:], sign)))
        else:
            m.d.comb += empty.eq(~value[-distance:].any())
        m.d.comb += [move.eq(empty & (free | bit)),
                     after.eq(Mux(move, value << distance, value))]
        if distance > 1:
            return after, sign, room, free | (bit & ~empty), move, *moves
        return after, sign, room - Cat(move, *moves)        # the top bit's exponent + 16

    def _element(self, m: Module, value: Value, sign: Value, exponent: Value) -> Value:
        cut = len(value) - SIGNIFICAND_BITS
        over = Signal()
        field, significand = Signal(5), Signal(SIGNIFICAND_BITS)
        m.d.comb += [
            over.eq(value[-1] & exponent[5:].any()),
            # Without its top bit a value is 0, or lies below 2^-16.
            field.eq((exponent[:5] & value[-1].replicate(5)) | over.replicate(5)),
            significand.eq(Cat(value[cut] | value[:cut].any(), value[cut + 1:])
                           | over.replicate(SIGNIFICAND_BITS)),
        ]
        with_sign = Cat(significand[1] | significand[0], significand[2:], sign)
        return Cat(Mux(self.signed, with_sign, significand), field)
