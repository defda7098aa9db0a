"""The SPI flash of a board, as its pins show it."""

from celosia_sim.flash.beside import Beside
from celosia_sim.flash.chip import Chip, Pins
from celosia_sim.flash.parts import PARTS, Part

__all__ = ["PARTS", "Beside", "Chip", "Part", "Pins"]
