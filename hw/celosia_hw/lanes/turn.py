"""From banks to lanes: codes turned inside each group, and nothing where a lane is hidden."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.delay import delayed
from celosia_hw.parts.rotator import Rotator, exchanges
from celosia_spec.isa.array import QUAD, Array
from celosia_spec.isa.timing import BANK, MANTISSA, TAP


class Turn(wiring.Component):
    """Give lane p of a group the code of bank (p + rotation) mod P', or that of 0.

    Inside a quad two stages of multiplexers turn; then a register; then quads exchange. In the last
    stage a lane is hidden in the same look-up tables, but for its top bit.

    Members
    -------
    log2_groups : In(2), signed_in : In(1)
        Stable while steps are inside. With signs the code of 0 is half the range.
    rotation : In(quads x log2 lanes)
        Of the taps.
    hidden : In(lanes)
    codes : In(lanes x activation_bits)
    x : Out(lanes x activation_bits)

    Timing
    ------
    ``hidden`` and ``codes`` come two cycles behind their ``rotation``, ``x`` ``LATENCY`` cycles:
    through two multiplexers (one for 8 lanes) from registers, the top bit one more.
    """

    LATENCY = MANTISSA - TAP

    def __init__(self, array: Array) -> None:
        self.array = array
        self.width = array.activation_bits
        turn = array.lanes.bit_length() - 1
        codes = data.ArrayLayout(self.width, array.lanes)
        super().__init__({
            "log2_groups": In(2), "signed_in": In(1),
            "rotation": In(data.ArrayLayout(turn, array.groups_max)),
            "hidden": In(array.lanes), "codes": In(codes), "x": Out(codes),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes = self.array.lanes
        late = delayed(m, self.rotation, BANK - TAP, "rotation")
        values: list[Value] = []
        for q in range(self.array.groups_max):
            m.submodules[f"quad{q}"] = quad = Rotator(QUAD, self.width)
            m.d.comb += quad.rotation.eq(late[q])
            for j in range(QUAD):
                value = Signal(self.width, name=f"turned{q * QUAD + j}", reset_less=True)
                m.d.comb += quad.i[j].eq(self.codes[q * QUAD + j])
                m.d.sync += value.eq(quad.o[j])
                values.append(value)
        half = QUAD
        while half < lanes // 2:
            values = self._exchange(m, half, late, values)
            half *= 2
        self._last(m, late[0], values)
        return m

    def _exchange(self, m: Module, half: int, rotation: Any, values: list[Value]) -> list[Value]:
        """Exchange between the halves of blocks, where groups are as large."""
        after: list[Value] = []
        apart = self.log2_groups > (self.array.lanes // (2 * half)).bit_length() - 1
        for first in range(0, len(values), 2 * half):
            swap = Signal(half, name=f"swap{half}_{first}", reset_less=True)
            m.d.sync += swap.eq(Mux(apart, 0, Cat(exchanges(rotation[first // QUAD], half))))
            for p in range(first, first + 2 * half):
                value = Signal(self.width, name=f"exchanged{half}_{p}")
                m.d.comb += value.eq(Mux(swap[p % half], values[p ^ half], values[p]))
                after.append(value)
        return after

    def _last(self, m: Module, rotation: Value, values: list[Value]) -> None:
        """Exchange between the halves of all lanes, where there is one group, and hide lanes."""
        half = self.array.lanes // 2
        swap = Signal(half, reset_less=True)
        m.d.sync += swap.eq(Mux(self.log2_groups == 0, Cat(exchanges(rotation, half)), 0))
        for p, value in enumerate(values):
            nothing = Signal(name=f"nothing{p}", reset_less=True)
            turned = Signal(self.width, name=f"code{p}")
            m.d.sync += nothing.eq(self.hidden[p])
            m.d.comb += [
                turned.eq(Mux(swap[p % half], values[p ^ half], value)),
                self.x[p].eq(Cat(turned[:-1] & ~nothing.replicate(self.width - 1),
                                 Mux(nothing, self.signed_in, turned[-1]))),
            ]
