"""LeNet-5 on the simulated gateware against the golden model, bit for bit and cycle for cycle.

Compared are the outputs, their exponents and the saturation flags of every image and, on the
verilated machine, every stored tensor of every image; the cycles of each image are compared with
the compiler's prediction. For dynamic and for static exponents, iCEBreaker configuration.
"""

import argparse

from celosia.cli import common as terminal
from celosia.verify import Verification, verify
from harness.command import main
from harness.networks import MODES, inputs, lenet5
from harness.result import Check, Result, Table

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
        for simulator, images in (("verilator", len(x)), ("icarus", arguments.icarus_images)):
            if not images:
                continue
            with terminal.progress(f"{mode}, {simulator}") as report:
                found = verify(program, x[:images], simulator, progress=report)
            rows.append(_row(mode, simulator, found))
            checks += _checks(f"{mode}, {simulator}", found)
    table = Table.of(f"LeNet-5, {TARGET}, {program.lanes} lanes: simulated gateware and golden "
                     "model", COLUMNS, rows)
    return Result(title="Exactness", tables=(table,), checks=tuple(checks))


def _row(mode: str, simulator: str, found: Verification) -> list:
    return [mode, simulator, found.images, len(found.tensors), found.values, found.mismatches,
            found.predicted_cycles, int(found.cycles.min()), int(found.cycles.max())]


def _checks(where: str, found: Verification) -> list[Check]:
    wrong = int((found.cycles != found.predicted_cycles).sum())
    return [Check.equal(f"mismatches, {where}", found.mismatches, 0),
            Check.equal(f"images with other cycles than predicted, {where}", wrong, 0)]


if __name__ == "__main__":
    main(measure, __doc__,
         ("--images", {"type": int, "default": 1000, "help": "on Verilator (%(default)s)"}),
         ("--icarus-images", {"type": int, "default": 5, "help": "on Icarus (%(default)s)"}))
