"""Synthesis of a design for a device: the one call of Yosys, for bitstreams and for simulation."""

from pathlib import Path

from celosia_boards.families.family import Device
from celosia_boards.toolchain import BuildError, run_tool

__all__ = ["check_log", "script", "synthesise"]

# No memory of the design is read and written at the same place in the same cycle, or the result is
# not used; saying so saves Yosys the comparator and bypass it would put around each memory. Only
# registered read ports of memories with one write port, and not those that ask for the new data.
_NO_COLLISION = ("select -set plain t:$memrd_v2 r:COLLISION_X_MASK=1'0 %i "
                 "r:TRANSPARENCY_MASK=1'0 %i r:CLK_ENABLE=1 %i\n"
                 "setparam -set COLLISION_X_MASK 1'1 @plain\n")


def script(device: Device, name: str) -> str:
    """Return Yosys' commands from ``<name>.il`` to the netlist of its module ``name``."""
    return f"read_rtlil {name}.il\n{_NO_COLLISION}{device.family.synthesis(device, name)}"


def synthesise(device: Device, work: Path, name: str, write: str) -> None:
    """Synthesise ``<name>.il`` in folder ``work``, and leave ``<name>.ys`` and its log.

    write : the command that writes the netlist, "write_json celosia.json".
    BuildError where Yosys is missing or fails, or the netlist is wrong (see `check_log`).
    """
    (work / f"{name}.ys").write_text(f"{script(device, name)}{write}\n", encoding="utf-8")
    log = f"{name}.yosys.log"
    run_tool("yosys", ["-q", "-l", log, f"{name}.ys"], work, log)
    check_log((work / log).read_text(encoding="utf-8", errors="replace"))


def check_log(text: str) -> None:
    """Refuse a netlist that Yosys has silently mended; BuildError with the offending lines.

    "Driver-driver conflict" is the only sign of its known miscompiles of multiplier blocks.
    """
    bad = [line.strip() for line in text.splitlines() if "Driver-driver conflict" in line]
    if bad:
        raise BuildError("yosys resolved conflicting drivers, so the netlist is wrong:\n  "
                         + "\n  ".join(bad[:5])
                         + "\nreport the design; instantiate the multiplier blocks instead of "
                           "inferring them")
