"""``celosia demo``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from celosia.cli import common
from celosia.cli.build import written
from celosia.cli.compare import comparison_table
from celosia.cli.progress import work
from celosia.cli.tables import Table
from celosia.compare import compare
from celosia.demo import BOARD, FOLDER, Demonstration, demonstrate
from celosia.show import clock_of, speed


def demo(
    output: Annotated[Path, typer.Option(
        "--output", "-o", help="Folder of the program and the bitstream.")] = FOLDER,
    no_build: Annotated[bool, typer.Option(
        "--no-build", help="Make no bitstream, which takes most of the time.")] = False,
    json: common.Json = False,
) -> None:
    """Take LeNet-5 from its checkpoint to an iCEBreaker bitstream, compared bit for bit.

    Exit status 0 only if every stored tensor and every cycle count of the simulated gateware is
    what the golden model and the compiler say, and the clock is met.
    """
    started = time.monotonic()
    with work() as shown:
        found = demonstrate(output, place=not no_build, stages=shown.stage)
    if json:
        common.emit(found.to_json())
    else:
        title = f"LeNet-5 on {BOARD}, {found.program.lanes} lanes"
        clock = clock_of(found.program)
        common.show(comparison_table(title, compare(found.program), clock))
        common.show(_table(found, time.monotonic() - started))
        cycles, built = found.program.predicted_cycles, found.build
        print(speed(cycles, clock if built is None else built.clock_mhz)
              + ", loading not counted")
        print(f"wrote {found.path}")
        if built is not None and built.bitstream is not None:
            print(written(built.bitstream))
    if found.faults:
        common.refuse("; ".join(found.faults))


def _table(found: Demonstration, seconds: float) -> Table:
    simulated = found.verification
    figures = {
        "accuracy measured on": f"{found.images:,} test images",
        "accuracy, float, dense": f"{found.accuracy_dense:.2%}",
        "accuracy, float, pruned": f"{found.accuracy_pruned:.2%}",
        "accuracy, accelerator": f"{found.accuracy_accelerator:.2%}",
        "images simulated": f"{simulated.images}",
        "values compared": f"{simulated.values:,}",
        "mismatches": f"{simulated.mismatches}",
        "cycles an image, predicted": f"{simulated.predicted_cycles:,}",
        "cycles an image, simulated": ", ".join(
            f"{cycles:,}" for cycles in sorted(set(simulated.cycles.tolist()))),
    }
    built = found.build
    if built is not None:
        figures |= {f"{title} (of {getattr(built.available, name):,})":
                    f"{getattr(built, name):,}" for title, name in _BLOCKS.items()}
        figures["Fmax, MHz"] = "none" if built.fmax_mhz is None else f"{built.fmax_mhz:.1f}"
        figures["clock, MHz"] = f"{built.clock_mhz:g}"
    figures["seconds"] = f"{seconds:.0f}"
    table = common.table("the whole path", "what", "figure")
    for what, figure in figures.items():
        table.add_row(what, figure)
    return table


_BLOCKS = {"LUTs": "luts", "EBR": "brams", "SPRAM": "sprams", "DSP": "dsps"}
