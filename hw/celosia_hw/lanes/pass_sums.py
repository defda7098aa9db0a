"""Products of mantissas and codes, their sums, and the shadow in which a pass's sums leave."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.delay import chain
from celosia_hw.parts.multiplier import Multipliers
from celosia_spec.isa.array import QUAD, Array
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.timing import MANTISSA, MULTIPLY, SUMS


class PassSums(wiring.Component):
    """``lanes`` dot products side by side, exact where they have no more than `Array.sum_bits`.

    Members
    -------
    valid, first, last : In(1)
        There is a step; sums begin with it; they are complete with it.
    mantissas : In(quads x signed(weight_bits)), x : In(lanes x activation_bits)
        With ``valid``. Codes have no sign.
    shift : In(1)
        Strobe: the next sums in the following cycle.
    sums : Out(drain x signed(acc_bits))
        Of the last complete sums those of lane 0, or of 0 and 1, until ``shift``.

    Timing
    ------
    A step each cycle; between steps nothing changes. Sums are shown ``LATENCY`` cycles behind
    ``last``, and replace what is left of those before, whether ``shift`` or not.
    """

    LATENCY = SUMS - MANTISSA

    def __init__(self, array: Array, fabric: Fabric = GENERIC) -> None:
        self.array = array
        self.multipliers = Multipliers(array.lanes, array.weight_bits, array.activation_bits,
                                       fabric.multiplier)
        super().__init__({
            "valid": In(1), "first": In(1), "last": In(1),
            "mantissas": In(data.ArrayLayout(signed(array.weight_bits), array.groups_max)),
            "x": In(data.ArrayLayout(array.activation_bits, array.lanes)), "shift": In(1),
            "sums": Out(data.ArrayLayout(signed(array.acc_bits), array.drain)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes, shape = self.array.lanes, signed(self.array.sum_bits)
        drain = self.array.drain
        m.submodules.multipliers = multipliers = self.multipliers
        assert multipliers.LATENCY == MULTIPLY
        valid = chain(m, self.valid, MULTIPLY, "valid", reset_less=False)[-1]
        first = chain(m, self.first, MULTIPLY, "first")[-1]
        capture = chain(m, self.valid & self.last, MULTIPLY + 1, "last", reset_less=False)[-1]
        shadow = [Signal(shape, name=f"shadow{p}", reset_less=True) for p in range(lanes)]
        for p in range(lanes):
            total = Signal(shape, name=f"total{p}", reset_less=True)
            after = Signal(shape, name=f"after{p}")
            m.d.comb += [
                multipliers.w[p].eq(self.mantissas[p // QUAD]), multipliers.x[p].eq(self.x[p]),
                after.eq(total + multipliers.p[p]),
            ]
            # Written so that loading costs nothing: it goes into the adder's own look-up table.
            with m.If(valid):
                m.d.sync += total.eq(Mux(first, multipliers.p[p], after))
            beyond = shadow[p + drain] if p + drain < lanes else shadow[p]
            with m.If(capture | self.shift):
                m.d.sync += shadow[p].eq(Mux(capture, total, beyond))
        m.d.comb += [self.sums[e].eq(shadow[e]) for e in range(drain)]
        return m
