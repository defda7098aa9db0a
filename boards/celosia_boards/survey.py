"""Every board that is plugged in, with its USB device, its ports and who has them; nothing is
opened."""

from dataclasses import dataclass, replace
from pathlib import Path

from celosia_boards import usb
from celosia_boards.host import ports
from celosia_boards.host.holders import holders
from celosia_boards.host.ports import Port
from celosia_boards.host.refusals import may_open

__all__ = ["Seen", "SeenPort", "survey"]


@dataclass(frozen=True, kw_only=True)
class SeenPort:
    """A serial port of a device; the one that a driver opens has ``port.boards``.

    way_in  : the way for this user to be let in; "" where they may open it.
    holders : who has it open, as far as this user may see.
    """

    port: Port
    way_in: str
    holders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A device that has the USB id of a board's bridge.

    boards        : targets that its product string names; () where it may be any device.
    name          : that string, printable; "" where it tells none.
    serial_number : "" where it tells none.
    node          : the file that a loader opens; None where the system shows none.
    openable      : whether this user may open it.
    serial        : whether it may have a serial port at all.
    ports         : its serial ports.
    """

    boards: tuple[str, ...]
    name: str
    vendor: int
    product: int
    serial_number: str
    node: Path | None
    openable: bool
    serial: bool = True
    ports: tuple[SeenPort, ...] = ()


def survey() -> list[Seen] | None:
    """Return the devices that are plugged in, in the order of the bus; None where the system tells
    nothing of USB and shows no board's port."""
    devices = usb.attached()
    seen = [port for port in ports.find_ports() if port.location
            and port.vendor is not None and port.product is not None
            and usb.with_id(port.vendor, port.product)]
    if devices is None and not seen:
        return None
    found = {one.place: Seen(
        boards=one.boards, name=one.name, vendor=one.vendor, product=one.product,
        serial_number=one.serial_number, node=one.node, openable=one.openable,
        serial=one.serial)
        for one in devices or ()}
    for port in seen:
        place = port.location
        assert port.vendor is not None and port.product is not None
        if place not in found:              # as on macOS, which tells of ports alone
            found[place] = Seen(
                boards=tuple(board.name for board in usb.named(port.vendor, port.product,
                                                               port.title)),
                name=port.title, vendor=port.vendor, product=port.product,
                serial_number=port.serial_number, node=None, openable=True)
        found[place] = replace(found[place], ports=(*found[place].ports, _seen(port)))
    return list(found.values())


def _seen(port: Port) -> SeenPort:
    return SeenPort(port=port, way_in=may_open(port.name), holders=tuple(holders(port.name)))
