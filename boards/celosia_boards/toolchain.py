"""Finding and running the synthesis tools.

A tool is the command that its environment variable names (``YOSYS``, ``NEXTPNR_ICE40``,
``NEXTPNR_ECP5``, ``ICEPACK``, ``ECPPACK``), else its ``yowasp-`` build beside this Python or on
PATH, else the tool itself on PATH.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

__all__ = ["BuildError", "find_tool", "run_tool", "stoppable"]

_LAST_LINES = 12
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)

_TIED = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a command that Linux kills with its parent (PR_SET_PDEATHSIG), whatever killed that one."""


class BuildError(Exception):
    """A build stopped; the message names the tool, its last words and the log to read."""


def find_tool(name: str) -> str:
    """Return the command of tool ``name`` ("yosys", "nextpnr-ice40", "icepack", ...).

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


def run_tool(name: str, arguments: Sequence[str], directory: Path, log: str) -> None:
    """Run tool ``name`` in ``directory``; BuildError unless it succeeds.

    File names among the arguments should be relative: the ``yowasp-`` tools do not see /tmp.
    ``log`` is the file in ``directory`` that the tool writes its messages to. What it prints is
    added there if it fails or keeps no log; the message of an error quotes it.

    The tool does not outlive this call: it and its children are killed when the call is left by
    any exception, Ctrl-C and `stoppable` included, and on Linux also when this process is killed.
    """
    command = [find_tool(name), *arguments]
    if sys.platform == "linux":
        command = [sys.executable, "-IS", "-c", _TIED, str(os.getpid()), *command]
    with subprocess.Popen(command, cwd=directory, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, start_new_session=True) as tool:
        try:
            printed, _ = tool.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(tool.pid, signal.SIGKILL)
            raise
    if tool.returncode or not (directory / log).exists():
        with (directory / log).open("a", encoding="utf-8") as file:
            file.write(printed)
    if tool.returncode == 0:
        return
    lines = (directory / log).read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if line.startswith("ERROR")]
    words = "\n  ".join(dict.fromkeys(errors)) or "\n  ".join(lines[-_LAST_LINES:])
    raise BuildError(f"{name} failed with status {tool.returncode}:\n  {words}")


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what runs inside as Ctrl-C does: in order, with SystemExit.

    Changes nothing outside the main thread, or where the program handles the signal itself.
    """
    mine = [number for number in _ENDINGS if threading.current_thread() is threading.main_thread()
            and signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
