"""OrangeCrab r0.2: amaranth-boards has no serial port for it; none is on the board.

USB goes to the FPGA itself, so the serial port is at pins 0 and 1 of the Feather header, for an
adapter of 3.3 V.
"""

from amaranth.build import Attrs
from amaranth_boards import orangecrab_r0_2
from amaranth_boards.resources import LEDResources, UARTResource

__all__ = ["OrangeCrab25F", "OrangeCrab85F"]

_PADS = Attrs(IO_TYPE="LVCMOS33")
_OURS = [
    *LEDResources(pins="K4 M3 J3", invert=True, attrs=_PADS),           # red, green, blue
    UARTResource(0, rx="N17", tx="M18", attrs=Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP")),
]


class OrangeCrab25F(orangecrab_r0_2.OrangeCrabR0_2_25FPlatform):
    resources = (*orangecrab_r0_2.OrangeCrabR0_2_25FPlatform.resources, *_OURS)


class OrangeCrab85F(orangecrab_r0_2.OrangeCrabR0_2_85FPlatform):
    resources = (*orangecrab_r0_2.OrangeCrabR0_2_85FPlatform.resources, *_OURS)
