"""Finding and running the synthesis tools.

A tool is the command that its environment variable names (its name in capitals: ``YOSYS``,
``NEXTPNR_ICE40``, ``ICEPACK``, ...), else its ``yowasp-`` build beside this Python or on
PATH, else the tool itself on PATH.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from celosia_boards.families import FAMILIES
from celosia_boards.processes import started
from celosia_spec.errors import CelosiaError

__all__ = ["BuildError", "find_tool", "identity", "package_of", "run_tool"]

_LAST_LINES = 12
_LOOK_SECONDS = 2.0


class BuildError(CelosiaError):
    """A build stopped; the message names the tool, its last words and the log to read."""


def find_tool(name: str) -> str:
    """Return the command of tool ``name`` ("yosys", a family's placer or packer).

    BuildError where none is found, or where the environment names one that does not exist.
    """
    variable = name.upper().replace("-", "_")
    if named := os.environ.get(variable):
        found = shutil.which(named)
        if found is None:
            raise BuildError(f"environment variable {variable} names {named!r}, which is no "
                             f"command; correct it or unset it")
        return found
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(f"yowasp-{name}", path=path) or shutil.which(name)
    if found is None:
        raise BuildError(f'{name} is not installed; run: pip install "celosia[fpga]"')
    return found


def package_of(name: str) -> str:
    """Return the package of PyPI that brings a tool."""
    packers = {family.packer: f"nextpnr-{family.name}" for family in FAMILIES}
    return f"yowasp-{packers.get(name, name)}"


def identity(name: str) -> str:
    """Return what tells this tool from others of its name: the release of the package that brings
    it, in whatever environment; of one that no package has brought, its command, the size and the
    time of that file too."""
    path, package = Path(find_tool(name)), package_of(name)
    try:
        found = distribution(package)
    except PackageNotFoundError:
        said = f"{package} not installed"
    else:
        said = f"{package} {found.version}"
        brought = [Path(file.locate()) for file in found.files or () if file.name == path.name]
        if any(file.exists() and path.samefile(file) for file in brought):
            return said
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns} {said}"


def run_tool(name: str, arguments: Sequence[str], directory: Path, log: str,
             hopeless: Callable[[str], str | None] = lambda log: None) -> None:
    """Run tool ``name`` in ``directory``; BuildError unless it succeeds.

    hopeless : is given the log so far, every few seconds; where it returns a reason, the tool is
               killed, and the BuildError says so.

    File names among the arguments should be relative: the ``yowasp-`` tools do not see /tmp.
    ``log`` is the file in ``directory`` that the tool writes its messages to. What it prints is
    added there if it fails or keeps no log; the message of an error quotes it.

    The tool does not outlive this call, however that ends: see `celosia_boards.processes`.
    """
    with started([find_tool(name), *arguments], cwd=directory, errors="replace",
                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                 stdin=subprocess.DEVNULL) as tool:
        while True:
            try:
                printed, _ = tool.communicate(timeout=_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if reason := hopeless(_text(directory / log)):
                    raise BuildError(f"{name}: {reason}") from None
    if tool.returncode or not (directory / log).exists():
        with (directory / log).open("a", encoding="utf-8") as file:
            file.write(printed)
    if tool.returncode == 0:
        return
    lines = _text(directory / log).splitlines()
    errors = [line.strip() for line in lines if line.startswith("ERROR")]
    words = "\n  ".join(dict.fromkeys(errors)) or "\n  ".join(lines[-_LAST_LINES:])
    raise BuildError(f"{name} failed with status {tool.returncode}:\n  {words}")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
