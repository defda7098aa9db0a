"""LeNet-5 on the simulated gateware against the golden model, bit for bit and cycle for cycle.

Compared are the outputs, their exponents and the saturation flags of every image and, on the
verilated machine, every stored tensor of every image; the cycles of each image are compared with
the compiler's prediction. For dynamic and for static exponents, iCEBreaker configuration.
"""

import argparse
from collections.abc import Callable

import numpy as np
from harness.command import main
from harness.networks import MODES, inputs, lenet5
from harness.result import Cell, Check, Result, Table

import celosia
from celosia.cli.progress import progress
from celosia.verify import verify

TARGET = "icebreaker"
COLUMNS = {"exponents": "", "simulator": "", "images": ",d", "stored tensors": "d",
           "values compared": ",d", "mismatches": ",d", "cycles predicted": ",d",
           "cycles simulated, least": ",d", "most": ",d"}


def measure(arguments: argparse.Namespace) -> Result:
    """Verify both modes on both simulators."""
    x, _ = inputs(arguments.images)
    rows, checks = [], []
    for mode in MODES:
        program = lenet5(TARGET, mode)
        for simulator, images, compare in (("verilator", len(x), _every_tensor),
                                           ("icarus", arguments.icarus_images, _outputs)):
            if not images:
                continue
            with progress(f"{mode}, {simulator}") as report:
                tensors, values, mismatches, cycles = compare(program, x[:images], simulator,
                                                              report)
            rows.append([mode, simulator, images, tensors, values, mismatches,
                         program.predicted_cycles, int(cycles.min()), int(cycles.max())])
            wrong = int((cycles != program.predicted_cycles).sum())
            checks += [Check.equal(f"mismatches, {mode}, {simulator}", mismatches, 0),
                       Check.equal(f"images with other cycles than predicted, {mode}, {simulator}",
                                   wrong, 0)]
    table = Table.of(f"LeNet-5, {TARGET}, {program.lanes} lanes: simulated gateware and golden "
                     "model", COLUMNS, rows)
    return Result(title="Exactness", tables=(table,), checks=tuple(checks))


Compared = tuple[Cell, int, int, np.ndarray]
"""Stored tensors, values compared, mismatches, and the cycles of each image."""

Report = Callable[[int, int], None] | None


def _every_tensor(program: celosia.Program, x: np.ndarray, simulator: str,
                  report: Report) -> Compared:
    found = verify(program, x, simulator, progress=report)
    return len(found.tensors), found.values, found.mismatches, found.cycles


def _outputs(program: celosia.Program, x: np.ndarray, simulator: str, report: Report) -> Compared:
    found = celosia.run(program, x, simulator, progress=report)
    golden = celosia.run(program, x)
    pairs = [(getattr(found, name), getattr(golden, name))
             for name in ("mantissa", "exponent", "saturated")]
    return (1, sum(got.size for got, _ in pairs),
            sum(int((got != expected).sum()) for got, expected in pairs), found.cycles)


if __name__ == "__main__":
    main(measure, __doc__,
         ("--images", {"type": int, "default": 1000, "help": "on Verilator (%(default)s)"}),
         ("--icarus-images", {"type": int, "default": 5, "help": "on Icarus (%(default)s)"}))
