"""The fill engine of an array."""

from celosia_hw.fill.engine import FillEngine
from celosia_hw.fill.narrow_engine import NarrowEngine
from celosia_hw.fill.wide_engine import WideEngine
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC, Fabric


def fill_engine(array: Array, fabric: Fabric = GENERIC) -> FillEngine:
    """Return the fill engine of an array that is built of ``fabric``."""
    return (WideEngine if array.two_ports else NarrowEngine)(array, fabric)
