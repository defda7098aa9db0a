# amaranth: UnusedElaboratable=no
"""The libraries of a virtual board: the core, and the port in front of it with the host's end."""

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from pathlib import Path
from typing import Any

from celosia_boards.cache import Stages, unseen
from celosia_boards.description import Flash
from celosia_hw.host.serial import SerialHost
from celosia_hw.host.serial_port import SerialPort
from celosia_sim.simulators.rtl import Design, bus_design, design_of
from celosia_sim.simulators.verilated import library
from celosia_spec.arrays import AnyArray
from celosia_spec.isa import ArrayConfig
from celosia_spec.stream.array import Array

__all__ = ["core_library", "port_library"]

_HERE = Path(__file__).parent


def core_library(array: AnyArray, stages: Stages, flash: Flash | None, clock_hz: float) -> Path:
    """Return the verilated machine of ``array`` on its host bus, an edge a call, compiled unless
    the cache holds it; flash, clock_hz : of the board.

    Multipliers and weight memory are the generic ones, as in all simulations: they have the
    timing of the device's, and zeros in them at the start.
    """
    design = _both_edges(bus_design(array, stages, flash, clock_hz))
    return library(design, stages, _HERE / "core_bus.cpp", [_HERE / "bus.h"])


def port_library(array: AnyArray, clock_hz: float, baud: float, *, byte_level: bool,
                 stages: Stages = unseen) -> Path:
    """Return the verilated host port of an array's machine with the loop around it, likewise.

    byte_level : the port without its UART. The first machine's drop an incomplete request at the
                 same age.
    ValueError where the clock makes no such ``baud``.
    """
    make, key = _port(array, clock_hz, baud, byte_level)
    return library(_both_edges(design_of(make, repr(("port", byte_level, *key)), stages=stages)),
                   stages, _HERE / ("byte_stream.cpp" if byte_level else "serial_line.cpp"),
                   [_HERE / "bus.h", _HERE / "port.h"])


@singledispatch
def _port(array: AnyArray, clock_hz: float, baud: float,
          byte_level: bool) -> tuple[Callable[[], Any], tuple[Any, ...]]:
    """Return what makes an array's port, and what tells it from others."""
    raise TypeError(f"no array: {array!r}")


@_port.register
def _first_machine(array: ArrayConfig, clock_hz: float, baud: float,
                   byte_level: bool) -> tuple[Callable[[], Any], tuple[Any, ...]]:
    serial = SerialHost(clock_hz=clock_hz, baud=baud)

    def make() -> Any:
        from celosia_hw.host.port import HostPort
        return HostPort(timeout_cycles=serial.timeout_cycles) if byte_level else serial

    return make, (1, serial.divisor, serial.timeout_cycles)


@_port.register
def _second_machine(array: Array, clock_hz: float, baud: float,
                    byte_level: bool) -> tuple[Callable[[], Any], tuple[Any, ...]]:
    serial = SerialPort(clock_hz=clock_hz, baud=baud)

    def make() -> Any:
        from celosia_sim.virtual.byte_port import BytePort
        return BytePort() if byte_level else serial

    return make, (2, serial.divisor)


def _both_edges(design: Design) -> Design:
    """Return a design for which every change of the clock is an edge: half the evaluations."""
    text = design.text.replace("@(posedge clk)", "@(edge clk)")
    assert "posedge" not in text and "negedge" not in text, "a design with one clock, rising edges"
    return replace(design, text=text)
