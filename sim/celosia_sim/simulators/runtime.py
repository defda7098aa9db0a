"""Verilator's own part of every compiled model: the same for all, compiled once."""

import platform
import shutil
from pathlib import Path

from celosia_boards.cache import cached, digest
from celosia_sim.simulators.tools import (
    compiler_version,
    run_tool,
    verilator_environment,
    verilator_version,
)

__all__ = ["CFLAGS", "runtime"]

CFLAGS = "-fPIC -fvisibility=hidden -fno-gnu-unique"
"""What all that is linked into one library is compiled with."""

_FLAGS = ("--cc", "--no-timing", "--prefix", "Vempty", "-Mdir", "obj", "-CFLAGS", CFLAGS)


def runtime() -> Path:
    """Return ``libverilated.a``; half of the compiler's work on a whole core, more of a block's.

    SimulationError where Verilator or the compiler is missing or fails.
    """
    def build(folder: Path) -> None:
        (folder / "empty.v").write_text("module empty; endmodule\n")
        env = verilator_environment()
        run_tool("verilator", ["verilator", *_FLAGS, "empty.v"], cwd=folder, env=env)
        run_tool("g++", ["make", "-C", "obj", "-f", "Vempty.mk", "libverilated.a"], cwd=folder,
                 env=env)
        (folder / "obj" / "libverilated.a").rename(folder / "libverilated.a")
        shutil.rmtree(folder / "obj")

    key = digest(verilator_version(), compiler_version(), platform.machine(), " ".join(_FLAGS))
    return cached(f"verilator-runtime-{key}", build) / "libverilated.a"
