"""ULX3S: amaranth-boards has no single pin that keeps the ESP32 from resetting the board, and pins
of its flash that go one way only."""

from amaranth.build import Attrs, Pins, PinsN, Resource, Subsignal
from amaranth_boards import ulx3s

__all__ = ["Ulx3s12F", "Ulx3s25F", "Ulx3s45F", "Ulx3s85F"]

_OWN = (
    Resource("wifi_gpio0", 0, Pins("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33", DRIVE="4")),
    Resource("spi_flash_4x", 0, Subsignal("cs", PinsN("R2", dir="o")),
             Subsignal("dq", Pins("W2 V2 Y2 W1", dir="io")),
             Attrs(PULLMODE="NONE", DRIVE="4", IO_TYPE="LVCMOS33")))


class Ulx3s12F(ulx3s.ULX3S_12F_Platform):
    resources = (*ulx3s.ULX3S_12F_Platform.resources, *_OWN)


class Ulx3s25F(ulx3s.ULX3S_25F_Platform):
    resources = (*ulx3s.ULX3S_25F_Platform.resources, *_OWN)


class Ulx3s45F(ulx3s.ULX3S_45F_Platform):
    resources = (*ulx3s.ULX3S_45F_Platform.resources, *_OWN)


class Ulx3s85F(ulx3s.ULX3S_85F_Platform):
    resources = (*ulx3s.ULX3S_85F_Platform.resources, *_OWN)
