"""What the suite's cache holds of simulators, for tests that keep a cache of their own; an array
whose simulator several tests take."""

from pathlib import Path

from celosia_boards.cache import cache_directory
from celosia_sim.simulators.rtl import machine_design
from celosia_sim.simulators.runtime import runtime
from celosia_sim.simulators.verilated import library
from celosia_spec.isa.array import Array

__all__ = ["SMALL", "core_entries", "link", "runtime_entries"]

SMALL = Array(lanes=8, main_words=64, bank_rows=64, ring=64, controls=64, taps=64, tiles=64)
"""It is compiled soon, and no target carries it."""


def runtime_entries() -> list[Path]:
    """Return the entry of Verilator's own part, compiled unless it is there."""
    return [runtime().parent]


def core_entries(array: Array) -> list[Path]:
    """Return the entries of a core's simulator, and of all Verilog that is there."""
    compiled = library(machine_design(array)).parent
    return [compiled, *(path for path in cache_directory().glob("verilog-*")
                        if path.is_dir() and not path.suffix)]


def link(entries: list[Path], cache: Path) -> None:
    """Let another cache have entries."""
    for entry in entries:
        (cache / entry.name).symlink_to(entry)
