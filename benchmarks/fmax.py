"""Clock and utilisation of the arrays after placement and routing, over several nextpnr seeds.

The median counts: the highest standard clock that it meets with 5 % to spare must be no less than
the target's (docs/decisions/0006). Fmax is the router's, but at most what the device's multiplier
blocks stand (50 MHz on the UP5K, whose blocks nextpnr does not model). Each design is synthesised
once.
"""

import argparse
from functools import partial
from statistics import median

from amaranth.hdl import Elaboratable
from harness.command import FOLDER, main
from harness.result import Check, Result, Table

from celosia.cli.progress import stages
from celosia_boards.board_top import top_for
from celosia_boards.build import BuildReport, sweep_seeds
from celosia_boards.clocks import highest_clock
from celosia_boards.targets import Target, target, targets

DEFAULT, LARGE = ("icebreaker", "hx8k", "ecp5-25f"), ("ecp5-85f", "ulx3s-85f")
REQUIRED = {"icebreaker": 30.0, "ecp5-25f": 80.0, "ecp5-85f": 80.0, "ulx3s-85f": 80.0}
"""Least median Fmax in MHz that the design is held to, whatever clock a target runs at."""
COLUMNS = {"target": "", "lanes": "d", "LUTs": ",d", "of them": ".0%", "flip-flops": ",d",
           "block RAMs": "d", "of": "d", "multipliers": "d", "of ": "d", "SPRAMs": "d", "of  ": "d",
           "clock, MHz": "g", "Fmax, median": ".1f", "least": ".1f", "most": ".1f"}


def measure(arguments: argparse.Namespace) -> Result:
    """Build every chosen target and collect what the tools report."""
    names = arguments.targets or [*DEFAULT, *(LARGE if arguments.all else ())]
    seeds, rows, checks = range(1, arguments.seeds + 1), [], []
    for name in names:
        entry = target(name)
        with stages() as say:
            reports = sweep_seeds(partial(_design, entry), entry, FOLDER / "fmax" / name, seeds,
                                  progress=say)
        rows.append(_row(entry, reports))
        found = _fmax(reports)[0]
        checks.append(Check.at_least(f"standard clock that {name} meets with 5 % to spare, MHz",
                                     highest_clock(entry, found) or 0.0, entry.clock_mhz, "g"))
        if name in REQUIRED:
            checks.append(Check.at_least(f"median Fmax required of {name}, MHz", found,
                                         REQUIRED[name], ".1f"))
    table = Table.of(f"Arrays after placement and routing, {len(seeds)} seeds", COLUMNS, rows)
    notes = ("Cells are the largest count over the seeds; a LUT is a logic cell on iCE40. Lanes, "
             "memories and clock are the target's defaults (`celosia targets`); serial port and, "
             "on a board, its PLL are in.",)
    return Result(title="Clock and cells", tables=(table,), checks=tuple(checks), notes=notes)


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
    return [entry.name, entry.array.lanes, most["luts"], most["luts"] / has.luts, most["ffs"],
            most["brams"], has.brams, most["dsps"], has.dsps, most["sprams"], has.sprams,
            reports[0].clock_mhz, *_fmax(reports)]


if __name__ == "__main__":
    main(measure, __doc__,
         ("--targets", {"nargs": "+", "choices": list(targets()), "help": "instead of the usual "
                        f"ones: {', '.join(DEFAULT)}"}),
         ("--seeds", {"type": int, "default": 5, "help": "how many (%(default)s)"}),
         ("--all", {"action": "store_true", "help": f"{' and '.join(LARGE)} too (minutes a "
                     f"seed)"}))
