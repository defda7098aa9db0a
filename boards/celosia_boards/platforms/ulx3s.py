"""ULX3S: amaranth-boards has no single pin that keeps the ESP32 from resetting the board."""

from amaranth.build import Attrs, Pins, Resource
from amaranth_boards import ulx3s

__all__ = ["Ulx3s12F", "Ulx3s25F", "Ulx3s45F", "Ulx3s85F"]

_WIFI = Resource("wifi_gpio0", 0, Pins("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33", DRIVE="4"))


class Ulx3s12F(ulx3s.ULX3S_12F_Platform):
    resources = (*ulx3s.ULX3S_12F_Platform.resources, _WIFI)


class Ulx3s25F(ulx3s.ULX3S_25F_Platform):
    resources = (*ulx3s.ULX3S_25F_Platform.resources, _WIFI)


class Ulx3s45F(ulx3s.ULX3S_45F_Platform):
    resources = (*ulx3s.ULX3S_45F_Platform.resources, _WIFI)


class Ulx3s85F(ulx3s.ULX3S_85F_Platform):
    resources = (*ulx3s.ULX3S_85F_Platform.resources, _WIFI)
