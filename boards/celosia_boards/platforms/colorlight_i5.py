"""Colorlight i5 7.0 on the extension board: amaranth-boards has no such board."""

from amaranth.build import Attrs, Clock, Pins, Resource
from amaranth.vendor import LatticeECP5Platform
from amaranth_boards.resources import LEDResources, UARTResource

__all__ = ["ColorlightI5Platform"]

_PADS = Attrs(IO_TYPE="LVCMOS33")


class ColorlightI5Platform(LatticeECP5Platform):
    """The module's clock and LED, and the serial port that the extension board's probe has."""

    device = "LFE5U-25F"
    package = "BG381"
    speed = "6"
    default_clk = "clk25"
    resources = (
        Resource("clk25", 0, Pins("P3", dir="i"), Clock(25e6), _PADS),
        *LEDResources(pins="U16", invert=True, attrs=_PADS),
        UARTResource(0, rx="H18", tx="J17", attrs=_PADS),
    )
    connectors = ()
