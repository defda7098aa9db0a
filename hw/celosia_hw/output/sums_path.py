"""What the output paths of all arrays have in common: members, latency and lead."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import LAYER_LAYOUT
from celosia_hw.output.control import LayerExponents, OutputControl, OutputState, Write
from celosia_hw.output.heads import Heads
from celosia_hw.output.normalise import Normalise
from celosia_hw.signatures import Shadow
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC, Fabric


class SumsPath(wiring.Component):
    """From the shadow's sums to writes of main memory.

    fabric : what it is built of.   latency : cycles from a sum until its element is written.
    """

    def __init__(self, array: Array, fabric: Fabric = GENERIC) -> None:
        self.array, self.fabric = array, fabric
        self.latency = 2 + Normalise.LATENCY + array.clamp
        super().__init__({
            "layer": In(LAYER_LAYOUT), "exponents": In(LayerExponents()),
            "control": In(OutputControl(array)), "shadow": In(Shadow(array)),
            "write": Out(Write(array)), "state": Out(OutputState())})

    def lead(self) -> int:
        """Return the cycles from ``start`` until the pass's sums must be in the shadow."""
        return 1 + Heads.BIAS + self.array.residual
