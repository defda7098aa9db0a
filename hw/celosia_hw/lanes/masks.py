"""Which lanes read nothing, since their column is one that padding adds."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.stream.array import EDGE, QUAD, Array
from celosia_spec.stream.timing import BANK, TAP


class Masks(wiring.Component):
    """A mask of 1 to 3 hides so many lanes from where a line begins; one of 4 to 6 hides 1 to 3
    lanes before where the next one begins.

    Members
    -------
    log2_groups : In(2)
        Stable while steps are inside.
    starts, before, behind : In
        Of the tile, as in `tile_words`.
    masks : In(quads x 3)
        Of the taps.
    hidden : Out(lanes)

    Timing
    ------
    The tile's come a cycle behind the masks, ``hidden`` ``LATENCY`` cycles behind them, through one
    gate from registers.

    Cells on the UP5K, 16 lanes: 101 LUTs, 72 flip-flops.
    """

    LATENCY = BANK - TAP

    def __init__(self, array: Array) -> None:
        self.array = array
        super().__init__({
            "log2_groups": In(2), "starts": In(array.lanes), "before": In(EDGE),
            "behind": In(EDGE), "masks": In(data.ArrayLayout(3, array.groups_max)),
            "hidden": Out(array.lanes),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        quads = self.array.groups_max
        # Whether a group begins with a quad; one does behind the last quad, too.
        begins = Signal(quads + 1)
        m.d.comb += begins.eq(Cat(
            self.log2_groups >= quads.bit_length() - (q & -q).bit_length() if q % quads else 1
            for q in range(quads + 1)))
        for q in range(quads):
            first, end = q * QUAD, (q + 1) * QUAD
            outside = [(self.starts[first - k - 1] if first else 0) for k in range(EDGE - 1)]
            left = [Mux(begins[q], self.before[k], other) for k, other in enumerate(outside)]
            outside = [(self.starts[end + k] if q < quads - 1 else 0) for k in range(EDGE)]
            right = [Mux(begins[q + 1], self.behind[k], other) for k, other in enumerate(outside)]
            window = [*reversed(left), *self.starts[first:end], *right]
            named = Signal(len(window), name=f"window{q}")
            m.d.comb += named.eq(Cat(window))
            self._hide(m, q, named)
        return m

    def _hide(self, m: Module, q: int, window: Value) -> None:
        """Hide lanes of a quad; ``window`` begins two positions before it."""
        mask = self.masks[q]
        from_start, to_end = (Signal(EDGE, name=f"{name}{q}", reset_less=True)
                              for name in ("from_start", "to_end"))
        m.d.sync += [
            from_start.eq(Cat((mask > k) & (mask <= EDGE) for k in range(EDGE))),
            to_end.eq(Cat(mask > k + EDGE for k in range(EDGE))),
        ]
        for j in range(QUAD):
            at = EDGE - 1 + j
            reasons = [*(from_start[k] & window[at - k] for k in range(EDGE)),
                       *(to_end[k] & window[at + k + 1] for k in range(EDGE))]
            # Two of them are a look-up table.
            hides = Signal(EDGE, name=f"hides{q}_{j}", reset_less=True)
            m.d.sync += hides.eq(Cat(reasons[k] | reasons[k + EDGE] for k in range(EDGE)))
            m.d.comb += self.hidden[q * QUAD + j].eq(hides.any())
