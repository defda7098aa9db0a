"""Clock and utilisation of the arrays after placement and routing, over several nextpnr seeds; and
the network that is compiled for each, which its bitstream does not depend on.

The median counts: the highest standard clock that it meets with 5 % to spare must be no less than
the target's (docs/decisions/0006). Fmax is the router's, but at most what the device's multiplier
blocks stand (50 MHz on the UP5K, whose blocks nextpnr does not model). Each design is synthesised
once. --merge puts together what was measured one target at a time, and measures nothing.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from amaranth.hdl import Elaboratable
from harness.command import FOLDER, main
from harness.networks import lenet5
from harness.result import Check, Result, Table

from celosia.cli.progress import stages
from celosia_boards.board_top import top_for
from celosia_boards.build import BuildReport, sweep_seeds
from celosia_boards.clock import highest_clock
from celosia_boards.targets import Target, target, targets
from celosia_spec.errors import CelosiaError, FitError

DEFAULT = ("icebreaker", "hx8k", "ecp5-25f")
REQUIRED = {"icebreaker": 48.0, "hx8k": 70.0, "hx8k-b-evn": 70.0, "ecp5-25f": 100.0,
            "ulx3s-25f": 100.0, "orangecrab-25f": 100.0, "ecp5-85f": 100.0, "ulx3s-85f": 100.0}
"""Least median Fmax in MHz that the design is held to, whatever clock a target runs at."""
CELLS = {"icebreaker": 0.85}
"""Most of its cells that an array may take with serial port and flash reader."""
COLUMNS = {"target": "", "seeds": "d", "lanes": "d", "LUTs": ",d", "of them": ".0%",
           "flip-flops": ",d", "block RAMs": "d", "of": "d", "multipliers": "d", "of ": "d",
           "SPRAMs": "d", "of  ": "d", "clock, MHz": "g", "Fmax, median": ".1f", "least": ".1f",
           "most": ".1f"}
NETWORKS = {"target": "", "cycles an image": ",d", "clock, MHz": "g",
            "images a second": ",.0f"}


def measure(arguments: argparse.Namespace) -> Result:
    """Build every chosen target and collect what the tools report; or merge earlier results."""
    if arguments.merge:
        return _result(list(_merged(arguments.merge)), *arguments.note)
    names = arguments.targets or [*DEFAULT, *(name for name in targets()
                                              if arguments.all and name not in DEFAULT)]
    seeds, rows = range(1, arguments.seeds + 1), []
    for name in names:
        entry = target(name)
        with stages() as say:
            reports = sweep_seeds(partial(_design, entry), entry, FOLDER / "fmax" / name, seeds,
                                  progress=say)
        rows.append(_row(entry, reports))
    return _result(rows)


def _result(rows: list[list], *more: str) -> Result:
    titles, checks = list(COLUMNS), []
    for row in rows:
        found = dict(zip(titles, row, strict=True))
        entry, fmax = target(found["target"]), found["Fmax, median"]
        checks.append(Check.at_least(
            f"standard clock that {entry.name} meets with 5 % to spare, MHz",
            highest_clock(entry, fmax) or 0.0, entry.clock_mhz, "g"))
        if entry.name in REQUIRED:
            checks.append(Check.at_least(f"median Fmax required of {entry.name}, MHz", fmax,
                                         REQUIRED[entry.name], ".1f"))
        if entry.name in CELLS:
            checks.append(Check.at_most(f"share of the cells of {entry.name}", found["of them"],
                                        CELLS[entry.name], ".1%"))
    notes = ("Cells are the largest count over the seeds; a LUT is a logic cell on iCE40. Lanes, "
             "memories and clock are the target's defaults (`celosia targets`); serial port and, "
             "on a board, its PLL are in. The bitstream is the same for every network. "
             "A dash: LeNet-5 does not fit.", *more)
    return Result(title="Clock and cells", checks=tuple(checks), notes=notes, tables=(
        Table.of("Arrays after placement and routing", COLUMNS, rows),
        Table.of("LeNet-5, pruned, on them, exponents dynamic, loading not counted", NETWORKS,
                 list(_networks(row[0] for row in rows)))))


def _merged(paths: Sequence[Path]) -> Iterator[list]:
    """Yield the rows of earlier results, in the order of the table of targets; of a target that is
    in several the last. CelosiaError for one at another clock than the target's."""
    found: dict[str, list] = {}
    for path in paths:
        table = Result.from_json(json.loads(path.read_text(encoding="utf-8"))).tables[0]
        titles = [column.title for column in table.columns]
        words = re.search(r"(\d+) seeds", table.title)      # as results had it before the column
        for row in table.rows:
            cells = {"seeds": int(words[1])} if words else {}
            cells |= dict(zip(titles, row, strict=True))
            entry = target(str(cells["target"]))
            if cells["clock, MHz"] != entry.clock_mhz:
                raise CelosiaError(f"{path}: {entry.name} was placed for {cells['clock, MHz']:g} "
                                   f"MHz, and its clock is {entry.clock_mhz:g}; measure it again")
            found[entry.name] = [cells[title] for title in COLUMNS]
    yield from (found[name] for name in targets() if name in found)


def _networks(names: Iterable[str]) -> Iterator[list]:
    """Yield a row for each target: what LeNet-5 takes there."""
    found: dict[object, int | None] = {}
    for name in names:
        entry = target(name)
        if entry.machine not in found:
            try:
                found[entry.machine] = lenet5(name).predicted_cycles
            except FitError:
                found[entry.machine] = None
        cycles = found[entry.machine]
        yield [name, cycles, entry.clock_mhz,
               None if cycles is None else entry.clock_mhz * 1e6 / cycles]


def _design(entry: Target, clock_mhz: float) -> Elaboratable:
    return top_for(entry, clock_mhz=clock_mhz)


def _fmax(reports: list[BuildReport]) -> tuple[float, float, float]:
    """Return median, least and largest Fmax in MHz."""
    found = [report.fmax_mhz for report in reports if report.fmax_mhz is not None]
    return median(found), min(found), max(found)


def _row(entry: Target, reports: list[BuildReport]) -> list:
    has = entry.resources
    most = {name: max(getattr(report, name) for report in reports)
            for name in ("luts", "ffs", "brams", "dsps", "sprams")}
    return [entry.name, len(reports), entry.array.lanes_all, most["luts"], most["luts"] / has.luts,
            most["ffs"], most["brams"], has.brams, most["dsps"], has.dsps, most["sprams"],
            has.sprams, reports[0].clock_mhz, *_fmax(reports)]


if __name__ == "__main__":
    main(measure, __doc__,
         ("--targets", {"nargs": "+", "choices": list(targets()), "help": "instead of the usual "
                        f"ones: {', '.join(DEFAULT)}"}),
         ("--seeds", {"type": int, "default": 5, "help": "how many (%(default)s)"}),
         ("--all", {"action": "store_true", "help": "all targets (minutes a seed)"}),
         ("--merge", {"nargs": "+", "type": Path, "metavar": "JSON",
                      "help": "results of this benchmark, to be put together"}),
         ("--note", {"nargs": "*", "default": (), "metavar": "SENTENCE",
                     "help": "what the page says of them, such as which are of older gateware"}))
