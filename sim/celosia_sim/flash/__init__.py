"""The SPI flash of a board, as its pins show it."""

from celosia_sim.flash.beside import Beside
from celosia_sim.flash.chip import Chip, Pins, flash_error
from celosia_sim.flash.parts import PARTS, Part
from celosia_sim.flash.wired import Contents

__all__ = ["PARTS", "Beside", "Chip", "Contents", "Part", "Pins", "flash_error"]
