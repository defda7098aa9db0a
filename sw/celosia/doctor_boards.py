"""Which boards are plugged in, and whether this user may load them and talk to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from celosia.doctor_check import FLASH, MISSING, NOTE, OK, WRONG, Check

if TYPE_CHECKING:
    from celosia_boards.survey import Seen, SeenPort

__all__ = ["examine_boards"]

_TALK = "load, run on a board"
_PROMPT_MS = 1
"""The shortest that a latency timer can be set to, and what Celosia asks for."""

_RULE = "install the udev rule that celosia doctor --udev prints"


def examine_boards() -> tuple[list[Seen], list[Check]]:
    """Return what is plugged in, and what was found of it; never raises an Exception."""
    from celosia_boards.survey import survey

    try:
        seen = survey()
        checks = [check for one in seen or () for check in _about(one)]
    except Exception as problem:            # whatever a device, a driver or a system does
        words = " ".join(f"{type(problem).__name__}: {problem}".split())
        return [], [Check(name="USB boards", state=WRONG, found="", needed_for=FLASH,
                          way_out=words[:300])]
    if not checks:
        way_out = "plug one in" if seen is not None else "this system does not show USB devices"
        checks = [Check(name="USB boards", state=MISSING, found="none seen", needed_for=FLASH,
                        way_out=way_out)]
    return seen or [], checks


def _about(one: Seen) -> Iterator[Check]:
    name = " or ".join(one.boards) or "USB device"
    unsure = "" if one.boards else ", if it is a board"
    found = f"{one.name or 'no name'} ({one.vendor:04x}:{one.product:04x})"
    if one.serial_number:
        found += f", serial number {one.serial_number}"
    if one.node is not None:
        yield Check(name=name, state=OK if one.openable else WRONG, found=found,
                    needed_for=FLASH + unsure,
                    way_out="" if one.openable else f"you may not open {one.node}; {_RULE}, and "
                                                    f"plug the board in again")
    serial = [seen for seen in one.ports if seen.port.boards or not one.boards]
    for seen in serial:
        state, way_out = _state(seen)
        yield Check(name=f"{name}, port", state=state, found=_words(seen),
                    needed_for=_TALK + unsure, way_out=way_out)
    if one.boards and not one.serial:
        yield Check(name=f"{name}, port", state=NOTE, found="", needed_for=_TALK,
                    way_out="it loads the board and is no serial port: that is an adapter's on the "
                            "board's pins, so name the adapter's port (--port)")
    elif one.boards and not serial:
        yield Check(name=f"{name}, port", state=MISSING, found="", needed_for=_TALK,
                    way_out="the system shows no serial port of it: plug the board in again, as "
                            "some loaders (iceprog) take its driver off; on Linux see that the "
                            "kernel has the module ftdi_sio or cdc_acm")


def _words(seen: SeenPort) -> str:
    port = seen.port
    words = [port.name]
    if port.interface is not None:
        words.append(f"interface {port.interface}")
    if port.latency_ms is not None:
        words.append(f"latency timer {port.latency_ms} ms")
    return ", ".join(words)


def _state(seen: SeenPort) -> tuple[str, str]:
    """Return the state of a port, and what is to be done or known."""
    from celosia_boards.host.ports import latency_timer

    port = seen.port
    if seen.way_in:
        return WRONG, f"you may not open {port.name}: {seen.way_in}"
    if seen.holders:
        return WRONG, f"{port.name} is in use by {' and '.join(seen.holders)}; end that"
    if port.latency_ms is not None and port.latency_ms > _PROMPT_MS:
        return NOTE, (f"short answers wait for its latency timer; Celosia asks the driver for "
                      f"{_PROMPT_MS} ms when it opens the port; for other programs run: echo "
                      f"{_PROMPT_MS} | sudo tee {latency_timer(port.name)}")
    return OK, ""
