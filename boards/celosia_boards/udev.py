"""The udev rule that lets users open boards, made from the table of targets."""

from collections.abc import Iterator

from celosia_boards.targets import targets

__all__ = ["INSTALL", "PLACE", "rules"]

PLACE = "/etc/udev/rules.d/60-celosia.rules"
"""Before 73-seat-late.rules, which is where udev acts on the tag uaccess."""

INSTALL = (f"celosia doctor --udev | sudo tee {PLACE}", "sudo udevadm control --reload")
"""What installs it; boards that are plugged in want to be plugged in again."""

_USB_GROUPS = ("plugdev", "dialout", "uucp")
_TTY_GROUPS = ("dialout", "uucp")
"""What distributions call the group that may open USB devices, and serial ports."""


def rules() -> str:
    """Return the text of `PLACE` for this system: the user who sits at the machine may open every
    board's USB device, which loaders do (a CMSIS-DAP probe by its hidraw), and its serial ports;
    and so may a group, where the system has one for it."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield "# Boards that Celosia builds for: who sits at the machine may open them."
    yield "# Their USB ids belong to bridge chips and are on many other devices."
    for step in (*INSTALL, "plug the board in again"):
        yield f"# install: {step}"
    for (vendor, product), names in sorted(_ids().items()):
        device = f'ATTRS{{idVendor}}=="{vendor:04x}", ATTRS{{idProduct}}=="{product:04x}"'
        yield ""
        yield f"# {', '.join(names)}"
        for subsystem, groups in (("usb|hidraw", _USB_GROUPS), ("tty", _TTY_GROUPS)):
            group = _first(groups)
            named = f'GROUP="{group}", ' if group else ""
            yield (f'SUBSYSTEM=="{subsystem}", {device}, MODE="0660", {named}TAG+="uaccess", '
                   f'ENV{{ID_MM_DEVICE_IGNORE}}="1"')


def _ids() -> dict[tuple[int, int], list[str]]:
    """Return the USB ids of boards, and which boards have each."""
    found: dict[tuple[int, int], list[str]] = {}
    for place in targets().values():
        if place.usb:
            found.setdefault((place.usb.vendor, place.usb.product), []).append(place.name)
    return found


def _first(groups: tuple[str, ...]) -> str:
    """Return the first group that this system has; "" where it has none, whose name udev would
    complain about."""
    try:
        import grp
    except ImportError:                     # Windows
        return ""
    known = {group.gr_name for group in grp.getgrall()}
    return next((group for group in groups if group in known), "")
