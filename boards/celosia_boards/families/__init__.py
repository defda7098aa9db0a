"""Families of devices: what each is like stands in a file of its own, and nowhere else."""

from celosia_boards.families.ecp5 import ECP5
from celosia_boards.families.family import Family
from celosia_boards.families.ice40 import ICE40

__all__ = ["FAMILIES"]

FAMILIES: tuple[Family, ...] = (ICE40, ECP5)
