"""Which lanes read nothing, since their column is one that padding adds."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.delay import delayed
from celosia_spec.isa.array import QUAD, Array
from celosia_spec.isa.timing import BANK, TAP


class Masks(wiring.Component):
    """A mask's bit 0 hides lanes that begin a line, its bit 1 those behind which one begins.

    Members
    -------
    log2_groups : In(2)
        Stable while steps are inside.
    starts, behind : In
        Of the tile, as in `tile_words`.
    masks : In(quads x 2)
        Of the taps.
    hidden : Out(lanes)

    Timing
    ------
    The tile's come a cycle behind the masks, ``hidden`` ``LATENCY`` cycles behind them.
    """

    LATENCY = BANK - TAP

    def __init__(self, array: Array) -> None:
        self.array = array
        super().__init__({
            "log2_groups": In(2), "starts": In(array.lanes), "behind": In(1),
            "masks": In(data.ArrayLayout(2, array.groups_max)), "hidden": Out(array.lanes),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes = self.array.lanes
        late = delayed(m, self.masks, BANK - TAP - 1, "masks")
        for lane in range(lanes):
            following: Any = self.behind
            if (end := lane + 1) < lanes:
                following = self.starts[end]
                # A group may end there: the fewest for which one does.
                if groups := (lanes // (end & -end)).bit_length() - 1 if end % QUAD == 0 else 0:
                    named = Signal(name=f"following{lane}")
                    m.d.comb += named.eq(Mux(self.log2_groups >= groups, self.behind, following))
                    following = named
            mask, hides = late[lane // QUAD], Signal(name=f"hides{lane}", reset_less=True)
            m.d.sync += hides.eq((mask[0] & self.starts[lane]) | (mask[1] & following))
            m.d.comb += self.hidden[lane].eq(hides)
        return m
