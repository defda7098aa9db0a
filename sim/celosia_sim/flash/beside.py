"""A flash chip at the pins of a verilated machine: the chip of `chip`, as pins.h calls it."""

import ctypes
import weakref
from functools import partial
from pathlib import Path

from celosia_sim.flash.chip import Chip, flash_error
from celosia_spec.isa.array import FLASH

__all__ = ["PINS", "Beside"]

PINS = Path(__file__).parent / "pins.h"
"""What libraries of verilated machines include."""


class _Seen(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_int32) for name in ("levels", "driven", "lanes")),
                ("at", ctypes.c_int64))


_Step = ctypes.CFUNCTYPE(None, *[ctypes.c_int32] * 4, *[ctypes.c_int64] * 3,
                         ctypes.POINTER(_Seen))


class _FlashChip(ctypes.Structure):
    _fields_ = (("memory", ctypes.c_void_p), ("size", ctypes.c_int64), ("step", _Step),
                ("wires", ctypes.c_int32), ("twice", ctypes.c_int32))


class Beside:
    """``chip`` beside a machine of a library.

    element : cycles of an element, see `Array.flash`.   clock_hz : of the machine.

    ``pointer`` is what the library is given; it is good for as long as this object lives.
    """

    def __init__(self, chip: Chip, element: int, clock_hz: float) -> None:
        self.chip, self._half_ns = chip, 5e8 / clock_hz
        self._problem: BaseException | None = None
        wires, cycles = FLASH[element]
        self._memory = (ctypes.c_uint8 * len(chip.memory)).from_buffer(chip.memory)
        # Held by itself, this object would never be freed, nor the chip's megabytes.
        step = _Step(partial(Beside._step, weakref.proxy(self)))
        self._told = _FlashChip(
            memory=ctypes.addressof(self._memory), size=len(chip.memory), step=step,
            wires=wires, twice=cycles == 1)
        self.pointer = ctypes.byref(self._told)

    def check(self) -> None:
        """SimulationError where the machine did to the chip what nobody must."""
        if self._problem is not None:
            raise self._problem
        if self.chip.errors:
            raise flash_error(self.chip.errors[0])

    def _step(self, selected: int, clock: int, copi: int, drive: int, halves: int, clocks: int,
              shortest: int, seen: "ctypes._Pointer[_Seen]") -> None:
        chip, found = self.chip, seen.contents
        try:
            if clocks:
                chip.read_on(clocks, shortest * self._half_ns)
            pins = chip.step(selected=bool(selected), clock=bool(clock), io=0b1100 | copi,
                             driven=0b1101 * drive, ns=halves * self._half_ns)
        except BaseException as problem:        # it cannot pass through the library
            self._problem = problem
            return
        found.levels, found.driven = pins
        found.at, found.lanes = chip.reading or (0, 0)
