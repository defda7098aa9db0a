# amaranth: UnusedElaboratable=no
"""The libraries of a virtual board: the core, and the port in front of it with the host's end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from celosia_boards.cache import Stages, unseen
from celosia_boards.description import Flash
from celosia_boards.host.link import LINE_BITS
from celosia_hw.host.serial_port import SerialPort
from celosia_sim.simulators.rtl import Design, design_of, machine_design
from celosia_sim.simulators.verilated import library
from celosia_sim.virtual.simulation import FRACTION
from celosia_spec.isa.array import Array

__all__ = ["core_library", "port_library"]

_HERE = Path(__file__).parent


def core_library(array: Array, stages: Stages, flash: Flash | None, clock_hz: float) -> Path:
    """Return the verilated machine of ``array`` on its host bus, an edge a call, compiled unless
    the cache holds it; flash, clock_hz : of the board.

    Multipliers and main memory are the generic ones, as in all simulations: they have the
    timing of the device's, and zeros in them at the start.
    """
    design = _both_edges(machine_design(array, stages, flash, clock_hz))
    return library(design, stages, _HERE / "core_bus.cpp", [_HERE / "bus.h"], {})


def port_library(clock_hz: float, baud: float, *, byte_level: bool,
                 stages: Stages = unseen) -> Path:
    """Return the verilated host port with the loop around it, likewise.

    byte_level : the port without its UART.   ValueError where the clock makes no such ``baud``.
    """
    serial = SerialPort(clock_hz=clock_hz, baud=baud)

    def make() -> Any:
        from celosia_sim.virtual.byte_port import BytePort
        return BytePort() if byte_level else serial

    design = design_of(make, repr(("port", byte_level, serial.divisor)), stages=stages)
    return library(_both_edges(design), stages,
                   _HERE / ("byte_stream.cpp" if byte_level else "serial_line.cpp"),
                   [_HERE / "bus.h", _HERE / "port.h"],
                   {"FRACTION": FRACTION, "LINE_BITS": LINE_BITS})


def _both_edges(design: Design) -> Design:
    """Return a design for which every change of the clock is an edge: half the evaluations."""
    text = design.text.replace("@(posedge clk)", "@(edge clk)")
    assert "posedge" not in text and "negedge" not in text, "a design with one clock, rising edges"
    return replace(design, text=text)
