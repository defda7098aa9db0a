"""Clock and cells of the whole machine on its serial line, after placement and routing.

A design that its device does not hold is synthesised only: its cells are counted, and how many are
too many. Each design is synthesised once and placed with every seed; the median counts.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from amaranth.hdl import Elaboratable
from block_cells import counted
from harness.command import FOLDER, main
from harness.result import Check, Result, Table

from celosia.cli.progress import stages
from celosia_boards.arrays import array_for
from celosia_boards.board_top import top_for
from celosia_boards.build import sweep_seeds
from celosia_boards.families.ice40 import ICE40
from celosia_boards.stages import Job, OverfullError
from celosia_boards.targets import Target, target
from celosia_spec.isa.array import Array
from celosia_spec.isa.memories import blocks, main_blocks

ARRAYS = {
    "icebreaker, small": ("icebreaker", Array(drain=1, fill=2, residual=False), 48.0),
    "icebreaker, small, residual": ("icebreaker", Array(drain=1, fill=2), 48.0),
    "icebreaker, small, flash": ("icebreaker", Array(drain=1, fill=2, flash=4), 48.0),
    "icebreaker, small, all": ("icebreaker", Array(drain=1, fill=2, flash=4, clamp=True), 48.0),
    "icebreaker, all": ("icebreaker", Array(drain=1, flash=4, clamp=True), 48.0),
    "icebreaker": ("icebreaker", Array(residual=False), 48.0),
    "icebreaker, residual": ("icebreaker", Array(), 48.0),
    "icebreaker, 8 lanes": ("icebreaker", Array(lanes=8, residual=False), 48.0),
    "hx8k": ("hx8k-b-evn", Array(lanes=8, main_words=768, residual=False, clamp=True, flash=8),
             60.0),
    "ulx3s-25f": ("ulx3s-25f", Array(main_words=4096), 80.0),
    "ulx3s-85f, four clusters": ("ulx3s-85f", array_for("ulx3s-85f"), 60.0),
    "ulx3s-85f, eight clusters": ("ulx3s-85f", Array(
        main_words=4096, clamp=True, clusters=8, fill=8), 50.0),
}
"""Target, array, and the clock in MHz that placement is asked for, by what they are called."""

COLUMNS = {"machine": "", "lanes": "d", "cells": ",d", "of": ",d", "RAMs": "d", "of ": "d",
           "seeds": "d", "MHz, median": ".1f", "least": ".1f", "most": ".1f"}


def design(of: Target, array: Array, clock_mhz: float) -> Elaboratable:
    """Return the machine of an array on a target, for a clock."""
    return top_for(of, array, clock_mhz=clock_mhz)


def rams(of: Target, array: Array) -> int:
    """Return the block memories that an array takes there."""
    every = [*blocks(array, of.fabric), *([main_blocks(array)] if of.main_memory == "bram" else [])]
    return sum(memory.count * of.family.blocks(memory.depth, memory.width) for memory in every)


def measure(arguments: argparse.Namespace) -> Result:
    """Build every chosen machine."""
    rows: list[list[Any]] = []
    checks = []
    for name in arguments.machines or ARRAYS:
        where, array, wanted = ARRAYS[name]
        of = replace(target(where), clock_mhz=wanted)
        folder = FOLDER / "machine_fmax" / name.replace(", ", "_")
        needed, has = rams(of, array), of.resources
        make = partial(design, of, array)
        fmax: list[float] = []
        try:
            if arguments.synthesis:
                raise OverfullError("no placement was wanted")
            with stages() as say:
                reports = sweep_seeds(make, of, folder, range(1, arguments.seeds + 1),
                                      clock_mhz=wanted, progress=say)
            fmax = [report.fmax_mhz for report in reports if report.fmax_mhz is not None]
            cells = max(report.luts for report in reports)
        except OverfullError:
            cells = _cells(of, make(wanted), folder)
        found = [median(fmax), min(fmax), max(fmax)] if fmax else [None] * 3
        rows.append([name, array.lanes_all, cells, has.luts, needed, has.brams, len(fmax), *found])
        checks += [Check.at_most(f"cells of {name}", cells, has.luts, ",d"),
                   Check.at_most(f"block RAMs of {name}", needed, has.brams, "d"),
                   Check.at_least(f"MHz of {name}", found[0] or 0.0, wanted, ".1f")]
    return Result(title="The machine, whole", checks=tuple(checks), tables=(
        Table.of("With serial port; on boards with PLL", COLUMNS, rows),))


def _cells(of: Target, top: Elaboratable, folder: Path) -> int:
    """Return the cells of a design that is synthesised only."""
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(target=of, work=folder, name="celosia")
    job.elaborate(top)
    job.synthesise()
    netlist = json.loads((folder / "celosia.json").read_text(encoding="utf-8"))
    if of.family is ICE40:
        name, = (name for name, module in netlist["modules"].items()
                 if module["attributes"].get("top"))
        return counted({"modules": {"core": netlist["modules"][name]}})["cells"]
    raise OverfullError(f"{of.name} does not hold the machine")


if __name__ == "__main__":
    main(measure, __doc__,
         ("--machines", {"nargs": "+", "choices": list(ARRAYS), "help": "these only"}),
         ("--seeds", {"type": int, "default": 3, "help": "how many (%(default)s)"}),
         ("--synthesis", {"action": "store_true", "help": "count cells, place nothing"}))
