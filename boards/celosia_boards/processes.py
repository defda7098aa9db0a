"""Programs that end, with all that they have started, when whoever waits for them ends or gives up.

What builds and simulators start runs through here. Plain Python, and nothing of boards.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = ["started", "stoppable"]

_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
_GONE_SECONDS = 0.5

_TIED = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Runs a command that Linux kills with its parent (PR_SET_PDEATHSIG), whatever killed that one."""


@contextmanager
def started(command: Sequence[str], **arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Start ``command`` as a process group of its own.

    If the block is left by an exception (Ctrl-C and `stoppable` included), every process of the
    group is killed first: compilers that ``make`` has started do not go on writing into a folder
    that is being removed. On Linux the command is also killed when this process is.
    Its pipes carry text.   arguments : of ``subprocess.Popen``.
    """
    if sys.platform == "linux":
        command = [sys.executable, "-IS", "-c", _TIED, str(os.getpid()), *command]
    with (stoppable(),
          subprocess.Popen(command, start_new_session=True, text=True, **arguments) as process):
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process group and wait until it is gone, a moment at most: who has lost its parent
    may stay as an entry of the process table."""
    end = time.monotonic() + _GONE_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < end:       # the others are not ours to wait for
            os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.01)


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
