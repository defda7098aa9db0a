"""Sums to elements of a stored map, rounded to odd."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa import ELEMENT_BITS, EXPONENT_MAX, EXPONENT_MIN, SIGNIFICAND_BITS


class Normalise(wiring.Component):
    """``element = to_odd(sum, unit)`` (`celosia_spec.floats`): normalise, and mark what is cut off.

    Parameters
    ----------
    acc_bits : int
        Width W of a sum, 24 or 32.

    Members
    -------
    sum : In(signed(acc_bits))
        Its most negative value never occurs. Not negative where ``signed`` is 0.
    room : In(7)
        ``unit + W + UNIT_MARGIN``, of the row: how far a sum may move to the left.
    signed : In(1)
        Whether elements have a sign.
    element : Out(16)

    Timing
    ------
    One sum a cycle, ``LATENCY`` cycles. ``signed`` is stable while sums are inside.
    """

    LATENCY = 4

    def __init__(self, acc_bits: int = 24) -> None:
        self.acc_bits = acc_bits
        super().__init__({"sum": In(signed(acc_bits)), "room": In(7), "signed": In(1),
                          "element": Out(ELEMENT_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = self.acc_bits - 1
        value, sign = Signal(bits, reset_less=True), Signal(reset_less=True)
        exponent = Signal(7, reset_less=True)
        free, budget = Signal(reset_less=True), Signal(5, reset_less=True)
        m.d.sync += [
            value.eq(Mux(self.sum[-1], -self.sum, self.sum)), sign.eq(self.sum[-1]),
            exponent.eq(self.room), free.eq(self.room[5:].any()), budget.eq(self.room[:5]),
        ]
        stages: list[list[int]] = [[16, 8], [4, 2], [1]]
        parts: tuple[Value, ...] = (value, sign, exponent, free, budget)
        for at, distances in enumerate(stages):
            for distance in distances:
                parts = self._left(m, distance, *parts)
            if at < len(stages) - 1:
                held = [Signal(len(part), name=f"stage{at}_{k}", reset_less=True)
                        for k, part in enumerate(parts)]
                m.d.sync += [h.eq(part) for h, part in zip(held, parts, strict=True)]
                parts = tuple(held)
        m.d.sync += self.element.eq(self._element(m, *parts[:3]))
        return m

    def _left(self, m: Module, distance: int, value: Value, sign: Value, exponent: Value,
              free: Value, budget: Value) -> tuple[Value, ...]:
        """Move a value left by ``distance`` if only zeros fall off and the room allows it.

        A bit of the room that is not used leaves more than all smaller distances together.
        """
        bit = distance.bit_length() - 1
        empty, move = Signal(name=f"empty{distance}"), Signal(name=f"move{distance}")
        after = Signal(len(value), name=f"by{distance}")
        left = Signal(len(exponent), name=f"exponent{distance}")
        m.d.comb += [
            empty.eq(~value[-distance:].any()), move.eq(empty & (free | budget[bit])),
            after.eq(Mux(move, value << distance, value)),
            left.eq(exponent - Mux(move, distance, 0)),
        ]
        return after, sign, left, free | (budget[bit] & ~empty), budget

    def _element(self, m: Module, value: Value, sign: Value, exponent: Value) -> Value:
        """Return the element of a normalised value whose top bit is worth 2^(exponent - 16)."""
        cut = len(value) - SIGNIFICAND_BITS
        over = Signal()
        field, significand = Signal(5), Signal(SIGNIFICAND_BITS)
        m.d.comb += [
            over.eq(value[-1] & exponent[5:].any()),
            # Without its top bit a value is 0, or lies below 2^-16.
            field.eq(Mux(over, EXPONENT_MAX - EXPONENT_MIN, exponent[:5] & value[-1].replicate(5))),
            significand.eq(Cat(value[cut] | value[:cut].any(), value[cut + 1:])
                           | over.replicate(SIGNIFICAND_BITS)),
        ]
        with_sign = Cat(significand[1] | significand[0], significand[2:], sign)
        return Cat(Mux(self.signed, with_sign, significand), field)


