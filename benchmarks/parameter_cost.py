"""What a parameter of the array costs: the machine's cells as its target has it, and with another
value.

The machine of a target's array, without flash, is synthesised as for a bitstream, twice; nothing is
placed.
"""

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from harness.command import main
from harness.result import Result, Table

from celosia.cli.progress import progress
from celosia_boards.stages import Job
from celosia_boards.targets import target
from celosia_hw.machine import Machine
from celosia_spec.isa.array import Array

KINDS = {"LUTs": ("SB_LUT4", "LUT4"), "flip-flops": ("SB_DFF", "TRELLIS_FF"),
         "carry cells": ("SB_CARRY", "CCU2C")}
"""What is counted, by how its cells' names begin."""


def _cells(name: str, array: Array) -> list[int]:
    """Return how many cells of each of `KINDS` a machine has on a target."""
    of = target(name)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(target=replace(of, platform=None), work=Path(folder), name="machine")
        job.elaborate(Machine(array, fabric=of.fabric, main_memory=of.main_memory))
        job.synthesise()
        netlist = json.loads((Path(folder) / "machine.json").read_text(encoding="utf-8"))
    found = Counter(cell["type"] for cell in netlist["modules"]["machine"]["cells"].values())
    return [sum(count for kind, count in found.items() if kind.startswith(names))
            for names in KINDS.values()]


def measure(arguments: argparse.Namespace) -> Result:
    """Synthesise both on each target."""
    rows, values = [], {arguments.parameter: json.loads(arguments.value)}
    with progress("synthesis") as report:
        for done, name in enumerate(arguments.targets):
            array = replace(target(name).array, flash=0)
            for of in (array, replace(array, **values)):
                rows.append([name, str(getattr(of, arguments.parameter)), *_cells(name, of)])
            if report:
                report(done + 1, len(arguments.targets))
    table = Table.of(f"Machine with {arguments.parameter}",
                     {"target": "", arguments.parameter: "", **dict.fromkeys(KINDS, ",d")}, rows)
    return Result(title="Cost of an array parameter", tables=(table,), checks=())


if __name__ == "__main__":
    main(measure, __doc__,
         ("--parameter", {"default": "clamp", "help": "of the array (%(default)s)"}),
         ("--value", {"default": "false", "help": "of it, as JSON has it (%(default)s)"}),
         ("--targets", {"nargs": "+", "default": ["icebreaker"], "help": "(%(default)s)"}))
