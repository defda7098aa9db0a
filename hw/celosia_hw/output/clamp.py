"""The bound of a clamp, on elements of stored maps."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa.numbers import ELEMENT_BITS, SIGNIFICAND_BITS


class Clamp(wiring.Component):
    """Elements beyond a bound become the bound, with their sign.

    Members
    -------
    use, signed : In(1), bound : In(16)
        Of the layer; elements have signs, the bound has none.
    element : In(16), clamped : Out(16)

    Timing
    ------
    One element a cycle; ``clamped`` a cycle later.
    """

    def __init__(self) -> None:
        super().__init__({"use": In(1), "signed": In(1), "bound": In(ELEMENT_BITS),
                          "element": In(ELEMENT_BITS), "clamped": Out(ELEMENT_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        place = SIGNIFICAND_BITS - 1
        sign = self.element[place] & self.signed
        magnitude = Cat(self.element[:place], self.element[place] & ~self.signed,
                        self.element[place + 1:])
        bound = Signal(ELEMENT_BITS)
        m.d.comb += bound.eq(Cat(self.bound[:place], self.bound[place] | sign,
                                 self.bound[place + 1:]))
        m.d.sync += self.clamped.eq(Mux(self.use & (magnitude > self.bound), bound, self.element))
        return m
