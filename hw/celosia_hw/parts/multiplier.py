"""Lane multipliers: one contract, three ways to build them."""

from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.blocks import MULTIPLIER_BITS
from celosia_hw.parts.mac16 import mac16

__all__ = ["KINDS", "Multipliers"]

KINDS = tuple(MULTIPLIER_BITS)
"""``generic``: an inferred ``*``; ``mac16``: SB_MAC16 of iCE40 UltraPlus, two lanes a block;
``mult18``: MULT18X18D of ECP5, one lane a block."""


class Multipliers(wiring.Component):
    """Products ``p[i] = w[i] * x[i]``, one multiplier a lane. Weights w are signed, codes x
    are not.

    Parameters
    ----------
    lanes : int
        Number of multipliers, at least 1.
    weight_bits, activation_bits : int
        Operand widths, bits: 2 to 18, for ``mac16`` 2 to 8; of codes 2 to 17, but for ``mac16``.
    kind : str
        One of `KINDS`. All kinds give the same bits in the same cycles. Amaranth's own simulator
        ignores device blocks: simulate ``generic`` there.

    Members
    -------
    w : In(array of lanes x signed(weight_bits))
    x : In(array of lanes x activation_bits)
    p : Out(array of lanes x signed(weight_bits + activation_bits))
        Exact products.

    Timing
    ------
    Domain ``sync``. ``p`` belongs to the operands of `LATENCY` clock edges before; one set of
    operands a cycle. There is no enable, and reset does not touch the data registers.
    """

    LATENCY = 2

    def __init__(self, lanes: int, weight_bits: int, activation_bits: int,
                 kind: str = "generic") -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes!r}")
        most = MULTIPLIER_BITS[kind]
        # SB_MAC16 knows operands without a sign; the others take one bit more for it.
        limits = (("weight_bits", weight_bits, most),
                  ("activation_bits", activation_bits, most - (kind != "mac16")))
        for name, bits, limit in limits:
            if not 2 <= bits <= limit:
                raise ValueError(f"{name} must be 2 to {limit} for kind {kind!r}, not {bits!r}")
        self.lanes, self.kind = lanes, kind
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        super().__init__({
            "w": In(data.ArrayLayout(signed(weight_bits), lanes)),
            "x": In(data.ArrayLayout(activation_bits, lanes)),
            "p": Out(data.ArrayLayout(signed(weight_bits + activation_bits), lanes)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        if self.kind == "mac16":
            for first in range(0, self.lanes, 2):
                self._mac16(m, first)
        else:
            build = self._generic if self.kind == "generic" else self._mult18
            for lane in range(self.lanes):
                build(m, lane)
        return m

    def _generic(self, m: Module, lane: int) -> None:
        w = Signal(signed(self.weight_bits), reset_less=True, name=f"w_{lane}")
        x = Signal(self.activation_bits, reset_less=True, name=f"x_{lane}")
        p = Signal(signed(self.weight_bits + self.activation_bits), reset_less=True,
                   name=f"p_{lane}")
        m.d.sync += [w.eq(self.w[lane]), x.eq(self.x[lane]), p.eq(w * x)]
        m.d.comb += self.p[lane].eq(p)

    def _mac16(self, m: Module, first: int) -> None:
        """Lanes ``first`` (low half) and ``first + 1`` (high half, zero where there is none)."""
        a, b = Signal(16, name=f"a_{first}"), Signal(16, name=f"b_{first}")
        product = Signal(32, name=f"o_{first}")
        for half, lane in enumerate(range(first, min(first + 2, self.lanes))):
            m.d.comb += [
                a[8 * half:8 * half + 8].eq(self.w[lane]),
                b[8 * half:8 * half + 8].eq(self.x[lane]),
                self.p[lane].eq(product[16 * half:16 * half + 16]),
            ]
        m.submodules[f"mac16_{first}"] = mac16(a, b, product)

    def _mult18(self, m: Module, lane: int) -> None:
        a = Signal(signed(18), name=f"a_{lane}")
        b = Signal(signed(18), name=f"b_{lane}")
        product = Signal(36, name=f"o_{lane}")
        m.d.comb += [a.eq(self.w[lane]), b.eq(self.x[lane]), self.p[lane].eq(product)]
        m.submodules[f"mult18_{lane}"] = Instance(
            "MULT18X18D",
            p_REG_INPUTA_CLK="CLK0", p_REG_INPUTB_CLK="CLK0", p_REG_OUTPUT_CLK="CLK0",
            p_REG_INPUTC_CLK="NONE", p_REG_PIPELINE_CLK="NONE",
            p_SOURCEB_MODE="B_SHIFT", p_MULT_BYPASS="DISABLED", p_GSR="DISABLED",
            i_CLK0=ClockSignal(), i_CE0=Const(1), i_RST0=Const(0),
            i_SIGNEDA=Const(1), i_SIGNEDB=Const(1), i_SOURCEA=Const(0), i_SOURCEB=Const(0),
            **{f"i_{port}{n}": Const(0) for port in ("CLK", "CE", "RST") for n in (1, 2, 3)},
            **{f"i_A{bit}": a[bit] for bit in range(18)},
            **{f"i_B{bit}": b[bit] for bit in range(18)},
            **{f"i_C{bit}": Const(0) for bit in range(18)},
            **{f"o_P{bit}": product[bit] for bit in range(36)})
