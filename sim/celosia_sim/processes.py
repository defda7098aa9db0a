"""Programs that end, with all that they have started, when whoever waits for them gives up."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["started"]

_GONE_SECONDS = 0.5


@contextmanager
def started(command: Sequence[str], **arguments: Any) -> Iterator[subprocess.Popen]:
    """Start ``command`` as a process group of its own.

    If the block is left by an exception (Ctrl-C too), every process of the group is killed first:
    compilers that ``make`` has started do not go on writing into a folder that is being removed.
    arguments : of ``subprocess.Popen``.
    """
    with subprocess.Popen(command, start_new_session=True, **arguments) as process:
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen) -> None:
    """Kill a process group and wait until it is gone, a moment at most: who has lost its parent
    may stay as an entry of the process table."""
    end = time.monotonic() + _GONE_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < end:       # the others are not ours to wait for
            os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.01)
