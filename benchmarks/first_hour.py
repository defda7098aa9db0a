"""How long the commands take that people try first, each in a fresh process, and the tutorial.

Processor time is of all threads, user and system; the least of several runs counts, for it and for
the wall clock, since other processes on the machine only add to both. The tutorial's notebook runs
once, with no simulator and no bitstream from before; the FPGA tools have run on this machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.command import main
from harness.result import Check, Result, Table

from celosia.cli.progress import progress
from celosia_spec.errors import CelosiaError

SHORT_SECONDS, CHECK_SECONDS = 0.3, 5.0
"""Most processor seconds of what only lists something, and of LeNet-5 on all targets."""

COMMANDS = {        # arguments of celosia: most seconds
    "--help": SHORT_SECONDS, "targets": SHORT_SECONDS, "check lenet5": CHECK_SECONDS,
    "check lenet5-pruned": CHECK_SECONDS}
NOTEBOOK, NOTEBOOK_SECONDS = Path("docs") / "tutorial.ipynb", 300.0
"""The tutorial, and the most seconds by the clock that it may take on two cores."""


def measure(arguments: argparse.Namespace) -> Result:
    """Time every command."""
    rows, checks = [], []
    with progress("commands") as report:
        total = len(COMMANDS) + arguments.notebook
        for done, (command, bound) in enumerate(COMMANDS.items()):
            runs = [_run(command) for _ in range(arguments.runs)]
            cpu, wall = (min(seconds) for seconds in zip(*runs, strict=True))
            rows.append([f"celosia {command}", cpu, wall])
            checks.append(Check.at_most(f"processor seconds of `celosia {command}`", cpu, bound,
                                        ".2f"))
            if report:
                report(done + 1, total)
    if arguments.notebook:
        cpu, wall = _tutorial()
        rows.append([str(NOTEBOOK), cpu, wall])
        checks.append(Check.at_most("seconds of the tutorial's notebook by the clock", wall,
                                    NOTEBOOK_SECONDS, ".0f"))
    table = Table.of(f"Least of {arguments.runs} runs", {
        "command": "", "processor, s": ".2f", "wall clock, s": ".2f"}, rows)
    return Result(title="First commands", tables=(table,), checks=tuple(checks))


def _run(command: str) -> tuple[float, float]:
    """Return processor and wall-clock seconds of a command; CelosiaError where it fails."""
    return _seconds(f"celosia {command}", [sys.executable, "-m", "celosia", *command.split()])


def _tutorial() -> tuple[float, float]:
    """Return those of the notebook, run in an empty folder with an empty cache."""
    with TemporaryDirectory() as folder:
        copied = shutil.copy(NOTEBOOK, folder)
        execute = Path(sys.executable).with_name("jupyter-execute")
        return _seconds(str(NOTEBOOK), [str(execute), "--timeout=1200", "--inplace", copied],
                        {"CELOSIA_CACHE": f"{folder}/cache"})


def _seconds(what: str, words: Sequence[str],
             environment: Mapping[str, str] | None = None) -> tuple[float, float]:
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, **(environment or {})})
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CelosiaError(f"{what} ends with status {process.returncode}; run it alone")
    return used.ru_utime + used.ru_stime, wall


if __name__ == "__main__":
    main(measure, __doc__,
         ("--runs", {"type": int, "default": 5, "help": "of each command (%(default)s)"}),
         ("--no-notebook", {"dest": "notebook", "action": "store_false",
                            "help": "without the tutorial"}))
