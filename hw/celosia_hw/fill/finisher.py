"""Elements of a stored map to what a bank holds."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa.numbers import ELEMENT_BITS, EXPONENT_BITS, SIGNIFICAND_BITS


class Finisher(wiring.Component):
    """``code = code(finish(element, exponent))`` (`celosia_spec.floats`): the one rounding of a
    stored tensor, to nearest even.

    Parameters
    ----------
    bits : int
        Width L of mantissas, 4 to 9.

    Members
    -------
    element : In(16)
    exponent : In(5)
        The tensor's exponent + 16.
    signed : In(1)
        Whether the tensor's elements have a sign.
    zero : In(1)
        With ``element``: it counts as 0, whatever it is.
    code : Out(bits)
        The mantissa, of a tensor with signs moved up by 2^(bits - 1).
    clipped : Out(1)
        With ``code``: clipping changed it.

    Timing
    ------
    One element a cycle, ``LATENCY`` cycles. ``exponent`` and ``signed`` are stable while elements
    are inside.
    """

    LATENCY = 4

    def __init__(self, bits: int = 8) -> None:
        self.bits = bits
        super().__init__({"element": In(ELEMENT_BITS), "exponent": In(EXPONENT_BITS),
                          "signed": In(1), "zero": In(1), "code": Out(bits), "clipped": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        places = SIGNIFICAND_BITS
        negative, over = Signal(reset_less=True), Signal(reset_less=True)
        value, dropped = Signal(places, reset_less=True), Signal(reset_less=True)
        distance = Signal(EXPONENT_BITS - 1, reset_less=True)
        difference = Signal(EXPONENT_BITS + 1)
        given = Cat(self.element[:places - 1], self.element[places - 1] & ~self.signed)
        # A move by one place needs no difference: with it, a register costs no cell of its own.
        odd = self.exponent[0] ^ self.element[places]
        m.d.comb += difference.eq(self.exponent - self.element[places:])
        m.d.sync += [
            distance.eq(difference[1:-1]), over.eq(difference[-1]),
            negative.eq(self.signed & self.element[places - 1]),
            value.eq(Cat(Mux(odd, given[1:], given[:-1]), given[-1] & ~odd)),
            dropped.eq(odd & given[0]),
        ]
        with m.If(self.zero):
            # The whole distance, too: registers of one chain of carries have one reset.
            m.d.sync += [value.eq(0), dropped.eq(0), Cat(distance, over).eq(0)]
        first, lost = self._right(m, value, distance[2:], 8, "first")
        held, sticky = Signal(places, reset_less=True), Signal(reset_less=True)
        rest = Signal(2, reset_less=True)
        signs = [Signal(name=f"negative{k}", reset_less=True) for k in range(2)]
        m.d.sync += [held.eq(first), sticky.eq(lost | dropped), rest.eq(distance[:2]),
                     signs[0].eq(negative), signs[1].eq(signs[0])]
        # A value above its tensor's exponent becomes all ones. Zero has the smallest exponent.
        with m.If(over):
            m.d.sync += [held.eq(Cat(Const(-1, places - 1), ~self.signed)), rest.eq(0)]
        second, lost = self._right(m, held, rest, 2, "second")
        magnitude, up = Signal(self.bits, reset_less=True), Signal(reset_less=True)
        guard = places - self.bits - 1
        # The largest magnitude has not moved.
        ones = Signal(reset_less=True)
        m.d.sync += ones.eq((rest == 0) & held[guard + 1:-1].all() & (held[-1] | self.signed))
        m.d.sync += [
            magnitude.eq(second[guard + 1:] ^ signs[0].replicate(self.bits)),
            up.eq(second[guard] & (second[guard + 1] | sticky | lost | second[:guard].any())),
        ]
        self._limit(m, magnitude, up, ones, signs[1])
        return m

    def _right(self, m: Module, value: Value, amount: Value, unit: int,
               name: str) -> tuple[Value, Value]:
        """Return ``value >> amount * unit``, and whether a one fell off."""
        lost: Value = Cat().any()
        for bit in reversed(range(len(amount))):
            distance = unit << bit
            shifted = Signal(len(value), name=f"{name}_by{distance}")
            m.d.comb += shifted.eq(Mux(amount[bit], value >> distance, value))
            lost = lost | (amount[bit] & value[:distance].any())
            value = shifted
        return value, lost

    def _limit(self, m: Module, magnitude: Value, up: Value, ones: Value, negative: Value) -> None:
        """Round, clip, and give the code of a magnitude whose bits are inverted if ``negative``.

        -(a + 1) is ~a, and -a is ~a + 1. The largest magnitude, of ``ones``, is not rounded up.
        """
        total = Cat(Const(1, 1), magnitude) + Cat(negative ^ (up & ~ones))
        m.d.sync += [self.code.eq(total[1:] ^ (self.signed << self.bits - 1)),
                     self.clipped.eq(up & ones)]
