"""Which port a board is at: what users name, and what the system's serial ports tell.

Nothing is opened here. Serial ports are those that pyserial lists; pseudo-terminals are not among
them and are taken by name.
"""

import os
import re
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from celosia_boards import usb
from celosia_boards.targets import Target, target
from celosia_spec.errors import CelosiaError

__all__ = ["AUTO", "VARIABLE", "Port", "PortError", "find", "find_ports", "latency_timer", "near"]

AUTO = "auto"
VARIABLE = "CELOSIA_PORT"
"""Environment variable that names the port where nothing else does."""

_SOCKET = re.compile(r"socket://(?P<host>\[[0-9A-Fa-f:.]{2,64}\]|[A-Za-z0-9._-]{1,253})"
                     r":(?P<port>[0-9]{1,5})/?", re.ASCII)
_INTERFACE = re.compile(r":(?:\d+|x)\.(\d{1,3})", re.ASCII)
_SERIAL_BUS = Path("/sys/bus/usb-serial/devices")
_LOOKS = 3
_TOLD = 8
"""Ports that a message names; further ones it counts."""


class PortError(CelosiaError):
    """There is no such port, or it cannot be opened; the message is one line and has the way
    out."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A place where a board may be.

    name          : what users type for it, and what messages call it: a device's path, or
                    socket://HOST:PORT.
    boards        : targets whose serial port it is, by USB id, product string and interface; ()
                    where none is known, as of every pseudo-terminal and socket.
    description   : what it is, in words.
    reason        : why it counts as no board's port, in words; "" where it is one.
    vendor, product, interface : of the USB device; None where there is none, or it is not told.
    title, serial_number : its product string and serial number, printable; "" where it tells none.
    location      : its place on the bus, as Linux and macOS write it; "" where it is not told.
    baud          : bits a second that builds for these boards are made for, where all agree; else
                    None.
    latency_ms    : milliseconds that the driver lets a short answer wait; None where it has no
                    such timer.
    """

    name: str
    boards: tuple[str, ...] = ()
    description: str = ""
    reason: str = ""
    vendor: int | None = None
    product: int | None = None
    interface: int | None = None
    title: str = ""
    serial_number: str = ""
    location: str = ""
    baud: int | None = None
    latency_ms: int | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port number of a socket; None for a device."""
        found = _SOCKET.fullmatch(self.name)
        return (found["host"].strip("[]"), int(found["port"])) if found else None

    @property
    def virtual(self) -> bool:
        """Whether it is a pseudo-terminal: a program is at its other end."""
        return os.path.realpath(self.name).startswith("/dev/pts/")

    def __str__(self) -> str:
        """Name, board and what it is: as a list of ports shows it."""
        words = [" or ".join(self.boards) or self.description or "serial port"]
        if self.serial_number:
            words.append(f"serial number {self.serial_number}")
        return f"{self.name} ({', '.join(words)})"


def find_ports(listed: Any = None) -> list[Port]:
    """Return the system's serial ports, boards' first, else by name.

    listed : what takes the place of pyserial's ``comports``.

    PortError where the system's list cannot be read.
    """
    from serial.tools.list_ports import comports

    found = [_port(info) for info in _steady(listed or comports)]
    return sorted(found, key=lambda port: (not port.boards, len(port.name), port.name))


def _steady(listed: Any) -> list[Any]:
    """Return what is listed. pyserial stumbles over a device that goes while it looks: again."""
    for _ in range(_LOOKS):
        with suppress(TypeError, ValueError, OSError):
            return list(listed())
    raise PortError("the system's serial ports change while they are being listed; wait until "
                    "they rest, or name the port: --port /dev/ttyUSB1")


def find(port: str | None = None, *, board: str | None = None) -> Port:
    """Return the port that ``port`` names.

    port  : "auto" (the only one that belongs to a board), a device's path, or socket://HOST:PORT;
            None for what CELOSIA_PORT says, else "auto".
    board : with "auto", the board that it must be.

    PortError where there is none, or "auto" finds several.
    """
    wanted = (os.environ.get(VARIABLE) or AUTO) if port is None else port
    if wanted == AUTO:
        return _only(find_ports(), board)
    if "://" in wanted:
        return _socket(wanted)
    return _device(wanted)


def latency_timer(name: str) -> Path:
    """Return where Linux keeps a port's latency timer, in milliseconds, if it has one."""
    return _SERIAL_BUS / Path(os.path.realpath(name)).name / "latency_timer"


def near(ports: list[Port]) -> str:
    """Return in words which serial ports there are, and why none of them counts as a board's."""
    if not ports:
        return "this system shows no serial port"
    told = [f"{port} is {port.reason}" if port.reason else str(port) for port in ports[:_TOLD]]
    if len(ports) > _TOLD:
        told.append(f"{len(ports) - _TOLD} more")
    return "; ".join(told)


def _only(ports: list[Port], board: str | None) -> Port:
    """Return the one port of a board."""
    if board is not None and target(board).usb is None:
        raise PortError(f"{board} is no board that USB tells of; name its port: --port "
                        f"/dev/ttyUSB1")
    wanted = [port for port in ports if port.boards and (board is None or board in port.boards)]
    what = "board" if board is None else board
    if len(wanted) > 1:
        raise PortError(f"{len(wanted)} ports are a {what}'s: {near(wanted)}; name one: --port "
                        f"{_example(wanted).name}")
    if wanted:
        return wanted[0]
    example = next((port.name for port in ports if not port.boards and _likely(port)),
                   "/dev/ttyUSB1")
    raise PortError(f"no port is known as a {what}'s: {near(ports)}; plug the board in, or name "
                    f"the port: --port {example}")


def _example(ports: list[Port]) -> Port:
    """Return the serial one where they are one board's channels, in order; else the first."""
    told = target(ports[0].boards[0]).usb
    channel = told.interface or 0 if told else 0
    one = {(port.boards, port.location, port.interface) for port in ports}
    return ports[channel] if len(one) == 1 and channel < len(ports) else ports[0]


def _likely(port: Port) -> bool:
    """Whether it is the interface at which a board with the same bridge has its serial port."""
    return (port.vendor is not None and port.product is not None
            and any(_fits(place, port.interface)
                    for place in usb.with_id(port.vendor, port.product)))


def _fits(place: Target, interface: int | None) -> bool:
    return place.usb is not None and (place.usb.interface is None
                                      or interface in (None, place.usb.interface))


def _port(info: Any) -> Port:
    """Return a port from what pyserial tells of it, whose words are the device's own."""
    name = usb.printable(str(info.device), 200)
    product = usb.printable(info.product or "")
    located = _INTERFACE.search(info.location or "")
    interface = int(located[1]) if located else None
    boards: tuple[Target, ...] = ()
    reason = "no USB device"
    description = usb.printable(info.description or "").replace("n/a", "")
    if info.vid is not None:
        if interface is None and sys.platform == "linux":   # told wherever there are several
            interface = 0
        called = usb.named(info.vid, info.pid, product)
        boards = tuple(place for place in called if _fits(place, interface))
        reason = "" if boards else _reason(info.vid, info.pid, interface, called)
        description = f"{product or 'no name'}, {info.vid:04x}:{info.pid:04x}"
        if interface is not None:
            description += f", interface {interface}"
    speeds = {place.baud for place in boards}
    return Port(name=name, boards=tuple(place.name for place in boards), description=description,
                reason=reason, vendor=info.vid, product=info.pid, interface=interface,
                title=product, serial_number=usb.printable(info.serial_number or ""),
                location=usb.printable((info.location or "").partition(":")[0]),
                baud=speeds.pop() if len(speeds) == 1 else None,
                latency_ms=_latency(name))


def _reason(vendor: int, product: int, interface: int | None, called: tuple[Target, ...]) -> str:
    """Return why a USB port counts as no board's."""
    if called:
        serial = sorted({place.usb.interface for place in called
                         if place.usb and place.usb.interface is not None})
        return (f"another port of the {' or '.join(place.name for place in called)}, whose serial "
                f"port is interface {' or '.join(map(str, serial))}")
    sharing = usb.with_id(vendor, product)
    if not sharing:
        return "no board's bridge that Celosia knows"
    names = " or ".join(place.name for place in sharing)
    if any(_fits(place, interface) for place in sharing):
        return f"perhaps the serial port of a {names} whose bridge does not tell its name"
    return f"not the serial port of a {names}, whose bridge has this id"


def _latency(name: str) -> int | None:
    try:
        return int(latency_timer(name).read_text())
    except (OSError, ValueError):
        return None


def _socket(url: str) -> Port:
    found = _SOCKET.fullmatch(url)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise PortError(f"{usb.printable(url)!r} is no port: it takes socket://HOST:PORT with a "
                        f"port number from 1 to 65535, a serial port's path, or auto")
    return Port(name=url.rstrip("/"), description="a socket",
                reason="told by its name alone")


def _device(name: str) -> Port:
    """Return the port at a device's path, with what the system tells of it."""
    shown = usb.printable(name, 200)
    if sys.platform == "win32":
        raise PortError(f"{shown!r}: Celosia opens serial ports on Linux and macOS; on Windows, "
                        f"attach the board to WSL and run Celosia there, or name a "
                        f"socket://HOST:PORT")
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):           # ValueError: a null byte
        beside = Path("/dev") / shown
        hint = f"did you mean {beside}? " if beside.exists() and shown else ""
        ended = os.path.islink(name)        # noqa: PTH114, which fails for names too long
        gone = "what served it has ended" if ended else near(find_ports())
        raise PortError(f"there is no port {shown!r}; {hint}{gone}; plug the board in (celosia "
                        f"doctor shows what is seen), or serve a virtual one (celosia serve-sim), "
                        f"and name its port") from None
    if not stat.S_ISCHR(mode) or name != shown:
        raise PortError(f"{shown!r} is no serial port; it takes a serial port's path, "
                        f"socket://HOST:PORT, or auto")
    place = os.path.realpath(name)
    for port in find_ports():
        if os.path.realpath(port.name) == place:
            return replace(port, name=name)
    found = Port(name=name, reason="told by its name alone")
    return replace(found, description="a pseudo-terminal" if found.virtual else "a port")
