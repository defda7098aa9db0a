"""The lanes: multiply, accumulate, and hand a pass's sums over in parallel."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.delay import chain
from celosia_hw.parts.multiplier import Multipliers
from celosia_hw.signatures import Factors, beat_layout
from celosia_spec.isa import ArrayConfig
from celosia_spec.isa.timing import ACCUMULATE, MULTIPLY


class MacArray(wiring.Component):
    """``lanes`` exact dot products side by side.

    The first product of a pass loads the accumulators, while the finished sums move into the
    shadow registers of all lanes: passes follow each other without a bubble. The shadow registers
    shift towards lane 0, a beat at a time.

    Members
    -------
    factors : In(Factors)
        The lanes of quad ``q`` multiply ``factors.weights[q]``.
    shift : In(1)
        Strobe: ``sums`` becomes the next beat in the following cycle.
    sums : Out(beat x signed(acc_bits))
        A beat of the last pass's sums; the first beat until ``shift``. The compiler proves that no
        sum overflows. A new pass's sums replace whatever is left.

    Timing
    ------
    Factors every cycle. ``sums`` shows a pass ``LATENCY`` cycles after its factors with
    ``flags.last``. Bubbles (``flags.valid`` = 0) change nothing.
    """

    LATENCY = ACCUMULATE

    def __init__(self, array: ArrayConfig, mac: str = "generic") -> None:
        self.array, self.mac = array, mac
        super().__init__({"factors": In(Factors(array)), "shift": In(1),
                          "sums": Out(beat_layout(array))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        m.submodules.multipliers = multipliers = Multipliers(
            array.lanes, array.weight_bits, array.activation_bits, self.mac)
        flags = chain(m, self.factors.flags, MULTIPLY, "flags", reset_less=False)[-1]
        shadow = [Signal(signed(array.acc_bits), name=f"shadow{p}", reset_less=True)
                  for p in range(array.lanes)]
        capture = Signal()
        m.d.sync += capture.eq(flags.valid & flags.last)
        for p in range(array.lanes):
            total = Signal(signed(array.acc_bits), name=f"total{p}", reset_less=True)
            after = Signal(signed(array.acc_bits), name=f"after{p}")
            m.d.comb += [
                multipliers.w[p].eq(self.factors.weights[p // array.quad]),
                multipliers.x[p].eq(self.factors.x[p]),
                after.eq(total + multipliers.p[p]),
            ]
            # Written so that loading costs nothing: it goes into the adder's own look-up table.
            with m.If(flags.valid):
                m.d.sync += total.eq(Mux(flags.first, multipliers.p[p], after))
            beyond = shadow[p + array.beat] if p + array.beat < array.lanes else shadow[p]
            with m.If(capture | self.shift):
                m.d.sync += shadow[p].eq(Mux(capture, total, beyond))
        m.d.comb += [self.sums[e].eq(shadow[e]) for e in range(array.beat)]
        return m
