"""What of Celosia's surroundings is there, what each part is needed for, and how to get the rest.

Nothing that is looked for is imported: torch alone takes seconds, and may not load.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from celosia import __version__
from celosia.doctor_boards import examine_boards
from celosia.doctor_check import FLASH, MISSING, OK, WRONG, Check

if TYPE_CHECKING:
    from celosia_boards.families.family import Family

__all__ = ["PLACE", "examine", "examine_parts", "ready"]

PLACE = Path(__file__).parent
"""Where this Celosia is installed."""

OLDEST_PYTHON = (3, 11)
SPACE = 1 << 30
"""Bytes that should be free where simulators are kept and compiled."""

_ALWAYS, _COMPILE = "everything", "compile, prune, factorise"
_SIMULATE, _ICARUS = "run, verify on verilator", "run, verify on icarus"
_BUILD = "build"

PACKAGES = {
    "amaranth": ("", "simulations and builds"), "numpy": ("", _ALWAYS), "scipy": ("", _COMPILE),
    "safetensors": ("", "checkpoints of models"), "pydantic": ("", "program files"),
    "packaging": ("", "celosia doctor"), "pyserial": ("", "boards on a serial port"),
    "rich": ("", "tables"), "typer": ("", "the command line"),
    "torch": ("torch", _COMPILE), "tensorly": ("torch", "factorise --method tucker"),
    "pillow": ("torch", "pictures"), "onnx": ("onnx", ".onnx files"), "cocotb": ("sim", _ICARUS),
    "amaranth-boards": ("fpga", "build for a board"),
}
"""Package to the extra of Celosia that installs it ("" for none), and what it is needed for. The
tools that come as packages are looked for as tools."""


def ready(checks: list[Check]) -> bool:
    """Whether a network can be compiled here and run on the golden model."""
    return all(check.state == OK for check in checks if check.required)


def examine() -> list[Check]:
    """Return what was found, boards last, in the order in which a user needs it. Never raises an
    Exception: where looking itself fails, the check says so."""
    return [*examine_parts(), *examine_boards()[1]]


def examine_parts() -> list[Check]:
    """Return what was found of packages, tools and places; never raises an Exception."""
    checks = [_python(), Check(name="celosia", state=OK, needed_for=_ALWAYS,
                               found=__version__)]
    for name, (extra, purpose) in PACKAGES.items():
        checks.append(_look(name, purpose, partial(_package, name, extra)))
    for name, purpose, look in _tools():
        checks.append(_look(name, purpose, look))
    return checks


class _Lacking(Exception):
    """state, what was found, and the way out."""


def _look(name: str, purpose: str, look: Callable[[], str]) -> Check:
    """Return the check of what ``look`` returns: a version or a place."""
    try:
        return Check(name=name, state=OK, found=look(), needed_for=purpose)
    except _Lacking as problem:
        state, found, way_out = problem.args
    except Exception as problem:    # a damaged installation may raise anything
        state, found = WRONG, ""
        way_out = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
    return Check(name=name, state=state, found=found, needed_for=purpose, way_out=way_out)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= OLDEST_PYTHON
    way_out = "" if good else "make the environment with a newer one: python3.12 -m venv"
    return Check(name="python", state=OK if good else WRONG, found=found, needed_for=_ALWAYS,
                 way_out=way_out)


def _package(name: str, extra: str) -> str:
    """Return the version of an installed package that Celosia's own metadata allows."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        raise _Lacking(WRONG, "", "not judged without packaging; run: pip install packaging"
                       ) from None
    try:
        asked = {found.name: found for found in map(Requirement, requires("celosia") or ())}
    except PackageNotFoundError:        # run from its source
        asked = {}
    wanted = str(asked[name].specifier) if name in asked else ""
    way_out = "run: pip install " + (f'"celosia[{extra}]"' if extra else f'"{name}{wanted}"')
    try:
        found = version(name)
    except PackageNotFoundError:
        raise _Lacking(MISSING, "", way_out) from None
    if name in asked and not asked[name].specifier.contains(found, prereleases=True):
        raise _Lacking(WRONG, found, f"{way_out} (it must be {wanted})")
    return found


def _tools() -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Yield name, purpose and what looks for it, of every tool and place."""
    from celosia_boards.families import FAMILIES
    from celosia_sim.simulators import tools

    for name in tools.PROGRAMS:
        yield name, _SIMULATE, partial(_of_simulators, partial(tools.program, name))
    yield "verilator", _SIMULATE, partial(_of_simulators, tools.verilator_version)
    yield "iverilog", _ICARUS, partial(_of_simulators, tools.icarus_version)
    yield "libpython", _ICARUS, partial(_of_simulators, tools.shared_python)
    yield "yosys", _BUILD, partial(_of_builds, "yosys")
    for family in FAMILIES:
        for name in (f"nextpnr-{family.name}", family.packer):
            yield name, f"{_BUILD} ({family.title})", partial(_of_builds, name)
    for family in FAMILIES:
        yield f"loader, {family.title}", FLASH, partial(_loader, family)
    yield "cache folder", _SIMULATE, _cache


def _of_simulators(look: Callable[[], str]) -> str:
    from celosia_spec.errors import SimulationError

    try:
        return look()
    except SimulationError as problem:
        raise _Lacking(MISSING, "", _remedy(problem)) from None


def _remedy(problem: Exception) -> str:
    """Return the way out of a refusal that says no more than that its tool is missing."""
    _, missing, remedy = str(problem).partition(" is not installed; ")
    return remedy if missing else str(problem)


def _of_builds(name: str) -> str:
    """Return the version of a tool that comes as a package, and where any other is."""
    from celosia_boards.toolchain import BuildError, find_tool, package_of

    try:
        path = find_tool(name)
    except BuildError as problem:
        raise _Lacking(MISSING, "", _remedy(problem)) from None
    if not Path(path).name.startswith("yowasp-"):
        return path
    return f"{version(package_of(name))} (yowasp)"


def _loader(family: Family) -> str:
    from celosia_boards.loaders import PACKAGE, LoaderError, check_starts, find_loader, hint

    loader = find_loader(family)
    if loader is None:
        raise _Lacking(MISSING, "", hint(family))
    found = shutil.which(loader.path) or loader.path
    if Path(loader.path).is_absolute():
        found = f"{loader.name} of the package {PACKAGE}"
    try:
        check_starts(loader)
    except LoaderError as problem:
        raise _Lacking(WRONG, found, str(problem)) from None
    return found


def _cache() -> str:
    from celosia_boards.cache import cache_directory
    from celosia_spec.errors import CacheError

    try:
        folder = cache_directory()
    except CacheError as problem:
        raise _Lacking(WRONG, "", str(problem)) from None
    free = shutil.disk_usage(folder).free
    found = f"{folder}, {free / (1 << 30):,.1f} GiB free"
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _Lacking(WRONG, found, "it may not be written in; name another in CELOSIA_CACHE")
    if free < SPACE:
        raise _Lacking(WRONG, found, f"make {SPACE >> 30} GiB of room, or name a folder elsewhere "
                                     f"in CELOSIA_CACHE")
    return found
