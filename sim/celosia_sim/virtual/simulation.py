"""The libraries of a virtual board as Python calls them."""

import ctypes
from pathlib import Path

from celosia_boards.host.job import RESET_CYCLES
from celosia_sim.flash import Beside

__all__ = ["FRACTION", "Call", "Simulation"]

FRACTION = 20
"""Bits behind the point of a bit time, in Python and in C++."""


class Call(ctypes.Structure):
    """How far to go and the bytes for the machine, and what came of it; see port.h."""

    _fields_ = (("data", ctypes.c_char_p), ("out", ctypes.c_void_p),
                *((name, ctypes.c_int64) for name in ("in_count", "out_room", "until", "edges")),
                ("stop_when_quiet", ctypes.c_int32), ("quiet", ctypes.c_int32),
                *((name, ctypes.c_int64) for name in (
                    "in_taken", "out_count", "cycles", "starts", "simulated", "damaged")),
                *((name, ctypes.c_int32) for name in (
                    "busy", "error", "saturated", "was_busy", "was_error", "was_saturated")))


class _Core(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("handle", "edge", "again"))


class Simulation:
    """One machine of the two libraries of a board, out of reset.

    flash : the chip at its pins, if it has one; SimulationError where it does what the chip does
            not allow.
    """

    def __init__(self, core: Path, port: Path, bit_cycles: float, *, plain: bool,
                 flash: Beside | None = None) -> None:
        self._flash = flash
        self._core, self._port = (ctypes.CDLL(str(path)) for path in (core, port))
        opens = self._core.celosia_core_open, self._port.celosia_board_open
        for call in opens:
            call.restype = ctypes.c_void_p
        reset = ctypes.c_int64(RESET_CYCLES)
        self._core_handle = ctypes.c_void_p(opens[0](
            reset, flash.pointer if flash else None))
        edge, again = (ctypes.cast(call, ctypes.c_void_p) for call in (
            self._core.celosia_core_edge, self._core.celosia_core_again))
        self._handle = ctypes.c_void_p(opens[1](
            ctypes.byref(_Core(self._core_handle, edge, again)),
            ctypes.c_int64(round(bit_cycles * (1 << FRACTION))), reset, int(plain)))

    def run(self, call: Call) -> None:
        if not self._handle:
            raise ValueError("the board is closed; open another")
        self._port.celosia_board_run(self._handle, ctypes.byref(call))
        if self._flash is not None:
            self._flash.check()

    def close(self) -> None:
        if self._handle:
            self._port.celosia_board_close(self._handle)
            self._core.celosia_core_close(self._core_handle)
            self._handle.value = None
