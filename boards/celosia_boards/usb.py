"""USB devices of the known boards, as Linux shows them; nothing is opened."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from celosia_boards.description import Target
from celosia_boards.targets import targets

__all__ = ["Attached", "attached", "named", "printable", "with_id"]

_DEVICES = Path("/sys/bus/usb/devices")
_NODES = Path("/dev/bus/usb")
_SERIAL = {"02", "0a", "ff"}
"""Communication, its data, and a vendor's own, as FTDI's."""


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A device that has the USB id of a known board's bridge, as many other devices have.

    place    : where on the bus, as Linux writes it.
    name, serial_number : its product string and serial number, printable; "" where it tells none.
    boards   : targets whose name is in that string.
    serial   : whether one of its interfaces may be a serial port, as none of a DFU loader is.
    node     : the file that a loader opens.
    openable : whether this user may.
    """

    vendor: int
    product: int
    place: str
    name: str
    serial_number: str
    boards: tuple[str, ...]
    serial: bool
    node: Path
    openable: bool


def attached(devices: Path = _DEVICES, nodes: Path = _NODES) -> list[Attached] | None:
    """Return what is plugged in, in the order of the bus; None where the system does not tell."""
    if not devices.is_dir():
        return None
    found = []
    for folder in sorted(devices.iterdir()):
        try:
            vendor, product = (int(_text(folder / name), 16) for name in ("idVendor", "idProduct"))
            node = nodes.joinpath(*(f"{int(_text(folder / name)):03d}"
                                    for name in ("busnum", "devnum")))
        except (OSError, ValueError):           # an interface, or gone just now
            continue
        if with_id(vendor, product):
            name = _told(folder / "product")
            found.append(Attached(
                vendor=vendor, product=product, place=folder.name, name=name, node=node,
                serial_number=_told(folder / "serial"), serial=_serial(folder),
                boards=tuple(place.name for place in named(vendor, product, name)),
                openable=os.access(node, os.R_OK | os.W_OK)))
    return found


def with_id(vendor: int, product: int) -> tuple[Target, ...]:
    """Return the boards whose bridge has this USB id."""
    return tuple(place for place in targets().values()
                 if place.usb and (place.usb.vendor, place.usb.product) == (vendor, product))


def named(vendor: int, product: int, name: str) -> tuple[Target, ...]:
    """Return those of them that a product string, made `printable`, names."""
    return tuple(place for place in with_id(vendor, product)
                 if place.usb and re.search(place.usb.name, name))


def printable(text: str, length: int = 60) -> str:
    """Return what a device says of itself without what is not printable, cut to ``length``."""
    return "".join(c for c in text if c.isprintable())[:length]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _serial(folder: Path) -> bool:
    """Whether an interface is of a class that serial ports have, or the system tells of none."""
    classes = {_told(path) for path in folder.glob("*:*/bInterfaceClass")}
    return not classes or bool(classes & _SERIAL)


def _told(path: Path) -> str:
    """Return a string that the device itself chooses, without what is not printable."""
    try:
        return printable(_text(path))
    except OSError:
        return ""
