"""What the suite's cache holds of simulators, for tests that keep a cache of their own."""

from pathlib import Path

from celosia_boards.cache import cache_directory
from celosia_sim.simulators.rtl import core_design, machine_design
from celosia_sim.simulators.runtime import runtime
from celosia_sim.simulators.verilated import library
from celosia_spec.arrays import AnyArray
from celosia_spec.stream.array import Array

__all__ = ["core_entries", "link", "runtime_entries"]


def runtime_entries() -> list[Path]:
    """Return the entry of Verilator's own part, compiled unless it is there."""
    return [runtime().parent]


def core_entries(array: AnyArray) -> list[Path]:
    """Return the entries of a core's simulator, and of all Verilog that is there."""
    design = machine_design(array) if isinstance(array, Array) else core_design(array)
    compiled = library(design).parent
    return [compiled, *(path for path in cache_directory().glob("verilog-*")
                        if path.is_dir() and not path.suffix)]


def link(entries: list[Path], cache: Path) -> None:
    """Let another cache have entries."""
    for entry in entries:
        (cache / entry.name).symlink_to(entry)
