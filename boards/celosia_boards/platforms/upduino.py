"""UPduino 3: amaranth-boards has no serial port for it, and takes the loose internal oscillator.

The one channel of the FT232H is the programmer's SPI and the serial port: its TXD is the flash's
clock, its RXD the flash's data input, so the flash must not be selected while bytes go over them.
"""

from amaranth.build import Attrs, Pins, Resource
from amaranth_boards.resources import LEDResources, UARTResource
from amaranth_boards.upduino_v3 import UpduinoV3Platform

__all__ = ["UpduinoPlatform"]

_PADS = Attrs(IO_STANDARD="SB_LVCMOS")


class UpduinoPlatform(UpduinoV3Platform):
    """Clocked by the 12 MHz oscillator on pin 20: its jumper, OSC, must be soldered."""

    default_clk = "clk12"
    resources = (
        *UpduinoV3Platform.resources,
        *LEDResources(pins="41 39 40", invert=True, attrs=_PADS),       # red, green, blue
        UARTResource(0, rx="15", tx="14", attrs=_PADS),
        Resource("flash_cs_n", 0, Pins("16", dir="o"), _PADS),
    )
