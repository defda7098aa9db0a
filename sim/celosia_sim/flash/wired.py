"""A flash chip at the pins of a machine that a simulator shows cycle by cycle: what pins.h does,
for whoever calls Python in every cycle anyway."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from celosia_sim.flash.chip import Chip, Pins
from celosia_sim.flash.parts import PARTS
from celosia_spec.isa.array import FLASH

__all__ = ["Contents", "Driven", "Wired"]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A board's flash, and what reads it.

    part     : name of the chip.   memory : its first bytes.
    element  : cycles of an element, see `Array.flash`.   clock_hz : of the machine.
    """

    part: str
    memory: bytes
    element: int
    clock_hz: float

    @property
    def chip(self) -> Chip:
        """A chip that holds it."""
        return Chip(PARTS[self.part], self.memory)

    def save(self, path: Path) -> None:
        """Write it as a .npz file."""
        np.savez_compressed(path, part=self.part, memory=np.frombuffer(self.memory, np.uint8),
                            element=self.element, clock_hz=self.clock_hz)

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as file:
            return cls(part=str(file["part"]), memory=file["memory"].tobytes(),
                       element=int(file["element"]), clock_hz=float(file["clock_hz"]))


class Driven(NamedTuple):
    """What the machine gives its pins: chip select is low, and the clock, a data pin and whether it
    is driven."""

    selected: int
    clock: int
    copi: int
    drive: int


class Wired:
    """A chip, with the registers that a board has before it.

    ``driven`` is what the machine gave in the last `cycle`; ``levels`` are what it has at its data
    pins behind that.
    """

    def __init__(self, contents: Contents) -> None:
        self.chip, self._half_ns = contents.chip, 5e8 / contents.clock_hz
        self._wires, self._cycles = FLASH[contents.element]
        self.driven = self._shown = Driven(0, 0, 0, 0)
        self._seen = Pins(0, 0)
        self._halves = 0

    @property
    def levels(self) -> int:
        """Of the data pins that the machine reads."""
        levels = self._seen.levels & self._seen.driven | ~self._seen.driven
        return levels & (1 << self._wires) - 1

    def cycle(self, pins: Driven) -> None:
        """Let a cycle pass, at whose end the machine gives these."""
        self._half(self.driven.clock and self._cycles == 2)
        self._half(self.driven.clock)
        self.driven = pins

    def pass_over(self, cycles: int) -> None:
        """Let cycles pass in which the machine gives its pins what it gave before, without a
        clock."""
        self._halves += 2 * cycles

    def _half(self, clock: int) -> None:
        self._halves += 1
        now = self.driven._replace(clock=int(clock))
        if now._replace(copi=0) == self._shown._replace(copi=0):
            return
        self._seen = self.chip.step(
            selected=bool(now.selected), clock=bool(now.clock), io=0b1100 | now.copi,
            driven=0b1101 * now.drive, ns=self._halves * self._half_ns)
        self._shown, self._halves = now, 0
