"""A flashed board in simulation: the verilated machine, its port, and the host's end of it."""

import ctypes
from dataclasses import dataclass
from typing import Self

from celosia_boards.arrays import require
from celosia_boards.cache import Stages, unseen
from celosia_boards.clock import possible_clock
from celosia_boards.host.link import LINE_BITS
from celosia_boards.targets import Target
from celosia_boards.targets import target as find_target
from celosia_sim.flash import PARTS, Beside, Chip
from celosia_sim.virtual.design import core_library, port_library
from celosia_sim.virtual.simulation import Call, Simulation
from celosia_spec.isa.array import Array

__all__ = ["BAUD_ERROR_MAX", "Lights", "VirtualBoard"]

BAUD_ERROR_MAX = 50.0
"""Largest error of the host's bit time, percent, either way."""

_EDGES = 200_000
"""Clock edges between two chances for Python to see Ctrl-C: less than a second."""

_ROOM = 4096


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Levels of the machine's indicators, which the LEDs of a board show."""

    busy: bool = False
    error: bool = False
    saturated: bool = False


class VirtualBoard:
    """A board that has just been configured: its machine is out of reset and holds no program.

    A context manager: leaving it frees the machine. Time passes in `run` and `run_until_quiet`
    alone, and is counted in cycles of the machine's clock.

    Parameters
    ----------
    target : Target or str
        A board, or a bare device, which then has a serial port, too.
    array : Array
        The target's unless given. ArrayRefused where the target cannot hold it.
    baud : int
        Bits a second on the line; the target's unless given. ValueError where its clock makes no
        such rate.
    byte_level : bool
        Bytes go straight to the host port and back: there is no line, a byte takes the cycles that
        the port needs, and none is lost. While a program runs they come as slowly as on the line:
        hosts fill that time with padding. Without it every bit passes on the line.
    baud_error : float
        Percent by which the host's bits are longer than 1 / ``baud``; only with a line.
    image : bytes
        What the board's flash holds where the machine looks for it (`Flash.base`): a
        program's image, if the array has flash. ValueError where the target has none for it.
    plain : bool
        Simulate every cycle, also those in which nothing can change. The bytes and their times are
        the same.
    stages : called as the simulator is built, the first time for an array.

    Attributes
    ----------
    clock_hz, baud : of the machine.
    bytes_in, bytes_out : bytes that have begun on the line to the machine; that came from it.
    damaged : bytes from the machine without their stop bit; they are delivered all the same.
    starts : programs begun.
    simulated : cycles of the array that took work, of `cycles`.
    chip : the flash, of an array with flash. SimulationError from whatever lets time pass, where
           the machine does to it what nobody must.
    """

    def __init__(self, target: Target | str, array: Array | None = None, *,
                 baud: int | None = None, byte_level: bool = False, baud_error: float = 0.0,
                 image: bytes = b"", plain: bool = False, stages: Stages = unseen) -> None:
        self.target = target if isinstance(target, Target) else find_target(target)
        self.array = require(self.target, array or self.target.array)
        if baud_error and byte_level:
            raise ValueError("baud_error: bytes that go without a line have no baud rate; leave "
                             "byte_level out")
        if not abs(baud_error) <= BAUD_ERROR_MAX:
            raise ValueError(f"baud_error must be -{BAUD_ERROR_MAX:g} to {BAUD_ERROR_MAX:g} "
                             f"percent, not {baud_error!r}")
        self.clock_hz = possible_clock(self.target, self.target.clock_mhz) * 1e6
        self.baud = self.target.baud if baud is None else baud
        self.byte_level, self.baud_error, self._plain = byte_level, baud_error, plain
        port = port_library(self.clock_hz, self.baud, byte_level=byte_level,
                            stages=stages)
        self._libraries = core_library(self.array, stages, self.target.flash, self.clock_hz), port
        self.chip: Chip | None = None
        if self.array.flash:
            flash = self.target.flash
            assert flash is not None        # or there would be no library
            self.chip = Chip(PARTS[flash.part], bytes(flash.base) + image)
        self.bytes_in = self.bytes_out = 0
        self._pending = bytearray()
        self._room = ctypes.create_string_buffer(_ROOM)
        self._call = Call()
        self._before = dict.fromkeys(("cycles", "starts", "simulated", "damaged"), 0)
        self._simulation = self._configured()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._simulation.close()

    @property
    def bit_cycles(self) -> float:
        """Cycles that a bit of the host lasts on the line."""
        return self.clock_hz / self.baud * (1 + self.baud_error / 100)

    @property
    def byte_cycles(self) -> float:
        """Cycles that a byte of the host takes on the line; 0 without one."""
        return 0.0 if self.byte_level else LINE_BITS * self.bit_cycles

    @property
    def cycles(self) -> int:
        """Clock cycles so far, resets not counted."""
        return self._total("cycles")

    @property
    def seconds(self) -> float:
        """Simulated time so far."""
        return self.cycles / self.clock_hz

    @property
    def starts(self) -> int:
        return self._total("starts")

    @property
    def simulated(self) -> int:
        return self._total("simulated")

    @property
    def damaged(self) -> int:
        return self._total("damaged")

    @property
    def pending(self) -> int:
        """Bytes for the machine that are not yet on the line."""
        return len(self._pending)

    @property
    def quiet(self) -> bool:
        """Whether nothing can change any more before the next `send`: no byte under way or
        awaited, and the machine does nothing. Known only after a run."""
        return bool(self._call.quiet) and not self._pending

    @property
    def lights(self) -> Lights:
        """The indicators as of now."""
        call = self._call
        return Lights(busy=bool(call.busy), error=bool(call.error), saturated=bool(call.saturated))

    def seen_lights(self) -> Lights:
        """Return which indicators were on at any time since the last call."""
        call = self._call
        seen = Lights(busy=bool(call.was_busy), error=bool(call.was_error),
                      saturated=bool(call.was_saturated))
        call.was_busy, call.was_error, call.was_saturated = call.busy, call.error, call.saturated
        return seen

    def send(self, data: bytes) -> None:
        """Queue bytes for the machine; they go on the line back to back as time passes."""
        self._pending += data

    def run(self, cycles: int, *, until_bytes: int | None = None) -> bytes:
        """Let ``cycles`` cycles pass; return the bytes that came from the machine.

        until_bytes : stop in the cycle in which so many have come.
        """
        return self._advance(cycles, until_bytes, quiet=False)

    def run_until_quiet(self, max_cycles: int) -> bytes:
        """Let time pass until the board is `quiet`, at most so many cycles; return what came."""
        return self._advance(max_cycles, None, quiet=True)

    def reset(self, *, keep_pending: bool = False) -> None:
        """Configure the board anew: a machine whose memories are all zero, at once; its flash keeps
        what it holds.

        A byte under way is lost; those not yet on the line too, unless they are kept.
        """
        for name in self._before:
            self._before[name] = self._total(name)
        self._simulation.close()
        if not keep_pending:
            self._pending.clear()
        self._simulation = self._configured()

    def _configured(self) -> Simulation:
        seen, self._call = self._call, Call()
        for name in ("was_busy", "was_error", "was_saturated"):
            setattr(self._call, name, getattr(seen, name))
        beside = None
        if self.chip is not None:
            self.chip = Chip(self.chip.part, bytes(self.chip.memory))
            beside = Beside(self.chip, self.array.flash, self.clock_hz)
        return Simulation(*self._libraries, self.bit_cycles, plain=self._plain, flash=beside)

    def _total(self, name: str) -> int:
        return self._before[name] + int(getattr(self._call, name))

    def _advance(self, cycles: int, until_bytes: int | None, *, quiet: bool) -> bytes:
        if cycles < 0:
            raise ValueError(f"cycles must not be negative, not {cycles!r}")
        call, came = self._call, bytearray()
        call.until, call.stop_when_quiet = call.cycles + cycles, quiet
        call.edges, call.out = _EDGES, ctypes.addressof(self._room)
        while True:
            call.data = data = bytes(self._pending[:_EDGES])
            call.in_count = len(data)
            left = _ROOM if until_bytes is None else until_bytes - len(came)
            call.out_room = min(_ROOM, left)
            if call.out_room <= 0:
                break
            self._simulation.run(call)
            del self._pending[:call.in_taken]
            self.bytes_in += call.in_taken
            self.bytes_out += call.out_count
            came += self._room.raw[:call.out_count]
            if call.cycles >= call.until or (quiet and self.quiet):
                break
        return bytes(came)
