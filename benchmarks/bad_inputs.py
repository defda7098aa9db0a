"""What becomes of bad inputs: damaged and hostile program files, archives, data sets and commands.

Program files are changed byte by byte, and, with every checksum mended, in their tables, manifest
and sections; and networks that no compiler would make are lowered and written. What is accepted
must do on a model of the machine and on the simulated gateware what the golden model does, in the
cycles that it predicts. Commands run in a process of their own; one that is refused must say so in
a line and change nothing. Archives and data sets are read by such commands.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bad_inputs_commands as commands
import bad_inputs_files as files
import bad_inputs_programs as programs
import numpy as np
from bad_inputs_networks import Base, bases
from harness.command import main
from harness.forked import CRASH, HANG, each
from harness.result import Check, Result, Table

import celosia.compress
import celosia.datasets  # noqa: F401 - imported once, not in the process of every command
from celosia import cli
from celosia.cli.progress import progress
from celosia_sim.simulators.rtl import machine_design
from celosia_sim.simulators.verilated import library

COLUMNS = {"kind": "", "cases": ",d", "refused in words": ",d", "accepted, as right": ",d",
           "accepted, another and sound": ",d", "wrong in silence": ",d", "tracebacks": ",d",
           "hangs": ",d"}
PROGRAM_SECONDS, COMMAND_SECONDS = 20.0, 60.0
"""How long a case may take."""

PROGRAMS, FILES = 10_000, 600
QUICK = 20
"""With --quick, one of so many."""


def measure(arguments: argparse.Namespace) -> Result:
    """Try every kind and count."""
    for command in cli.COMMANDS:
        cli.find(command)
    shrink = QUICK if arguments.quick else 1
    with tempfile.TemporaryDirectory(prefix="celosia-bad-") as name:
        made = bases(arguments.seed)
        counts = _programs(made, Path(name), arguments, PROGRAMS // shrink)
        mended = sum(count.total() for kind, count in counts.items() if kind.endswith("mended"))
        damaged = _commands("file", *_files(Path(name) / "files", arguments.seed, FILES // shrink))
        lines = _commands("command", *_lines(made[0], Path(name) / "commands", shrink))
    found = counts | damaged | lines
    table = Table.of("Bad inputs", COLUMNS, [_row(kind, found[kind]) for kind in found])
    total: Counter = sum(found.values(), Counter())
    checks = [
        Check.at_least("program files", sum(map(Counter.total, counts.values())),
                       PROGRAMS // shrink, ",d"),
        Check.at_least("program files with mended checksums", mended, PROGRAMS // shrink // 2,
                       ",d"),
        Check.at_least("archives and data sets", sum(map(Counter.total, damaged.values())),
                       FILES // shrink, ",d"),
        Check.at_least("command lines", sum(map(Counter.total, lines.values())), 200 // shrink,
                       ",d"),
        *(Check.equal(what, total[kind], 0) for what, kind in (
            ("wrong in silence", "wrong"), ("tracebacks", "traceback"), ("hangs", "hang")))]
    return Result(title="Bad inputs", tables=(table,), checks=tuple(checks))


def _row(kind: str, count: Counter) -> list[str | int]:
    return [kind, count.total(), *(count[what] for what in (
        "refused", "equal", "consistent", "wrong", "traceback", "hang"))]


def _count(count: Counter, outcome: str, case: object) -> None:
    """Add an outcome; what is none of those that may be is told on stderr."""
    good = {programs.REFUSED: "refused", programs.EQUAL: "equal",
            programs.CONSISTENT: "consistent", commands.REFUSED: "refused",
            commands.ACCEPTED: "equal", commands.SOUND: "consistent"}
    if outcome in good:
        count[good[outcome]] += 1
        return
    tell(f"{case}: {outcome}")
    kind = "hang" if outcome == HANG else "traceback" if outcome == CRASH or outcome.startswith(
        "traceback") else "wrong"
    count[kind] += 1


def tell(text: str) -> None:
    """Say something on stderr."""
    print(text, file=sys.stderr)


def _tried(work: Callable[[Any], str], cases: Sequence[Any], what: str,
           kind_of: Callable[[Any], str], **how: Any) -> dict[str, Counter]:
    """Return the outcomes by kind, kinds in the order of the cases."""
    found = {kind_of(case): Counter() for case in cases}
    with progress(what) as report:
        for done, (case, outcome) in enumerate(each(work, cases, **how), 1):
            _count(found[kind_of(case)], outcome, case)
            if report:
                report(done, len(cases))
    return found


def _programs(made: list[Base], folder: Path, arguments: argparse.Namespace,
              count: int) -> dict[str, Counter]:
    if not arguments.quick:         # once, not in every process
        for array in {base.program.array for base in made}:
            library(machine_design(array))
    cases = [(kind, index) for kind, (_, share) in programs.KINDS.items()
             for index in range(count * share // 100)]

    def work(case: tuple[str, int]) -> str:
        kind, index = case
        rng = np.random.default_rng([arguments.seed, index, list(programs.KINDS).index(kind)])
        base = made[index % len(made)]
        path = folder / f"{os.getpid()}.celo"
        programs.mutant(path, kind, base, rng)
        try:
            return programs.judge(path, base, verilator=not arguments.quick)
        except Exception as problem:
            return f"traceback: {type(problem).__name__}: {problem}"

    return _tried(work, cases, "program files", lambda case: f"program file, {case[0]}",
                  limit=PROGRAM_SECONDS)


def _files(folder: Path, seed: int, count: int) -> tuple[list, Path]:
    folder.mkdir()
    return [commands.Command(case.kind, tuple(case.arguments), case.accept, f"case{number}")
            for number, case in enumerate(files.cases(folder, count, seed))], folder


def _lines(base: Base, folder: Path, shrink: int) -> tuple[list, Path]:
    folder.mkdir()
    commands.fill(folder, base)
    return commands.commands()[::shrink], folder


def _commands(what: str, cases: list[commands.Command], folder: Path) -> dict[str, Counter]:
    return _tried(lambda command: commands.outcome(command, folder), cases, f"{what}s",
                  lambda command: f"{what}, {command.kind}", limit=COMMAND_SECONDS, fresh=True)


if __name__ == "__main__":
    main(measure, __doc__,
         ("--quick", {"action": "store_true",
                      "help": f"one case of {QUICK}, and no simulated gateware"}),
         ("--seed", {"type": int, "default": 7, "help": "of the changes (%(default)s)"}))
