"""Accuracy of LeNet-5 on Fashion-MNIST: float, pruned, and as the accelerator computes it.

The last is the golden model, whose outputs are the gateware's (see exactness.py). All test images
that are installed are used: the full 10,000, or the 1,000 that come with the package.
"""

import argparse

import numpy as np
import torch
from harness.command import main
from harness.networks import CALIBRATION, MODES, inputs, lenet5
from harness.result import Check, Result, Table

import celosia
from celosia.cli.progress import progress
from celosia.evaluate import accuracy
from celosia.models import load_lenet5

TARGET = "icebreaker"
LOSS_TO_PRUNED, LOSS_TO_DENSE = 0.12, 1.0
"""Points that the 8-bit network may lose."""


def measure(arguments: argparse.Namespace) -> Result:
    """Measure the two float networks and the two quantised ones."""
    x, labels = inputs(arguments.images)
    floats = {name: _float(load_lenet5(pruned=pruned), x, labels)
              for name, pruned in (("dense", False), ("pruned", True))}
    rows = [[f"float32, {name}", None, value] for name, value in floats.items()]
    checks = []
    for mode in MODES:
        with progress(f"golden model, {mode}") as report:
            found = celosia.run(lenet5(TARGET, mode), x, progress=report)
        value = accuracy(found.mantissa, labels)
        rows.append([f"8-bit mantissas, pruned, {mode} exponents", int(found.saturated.sum()),
                     value])
        for name, most in (("pruned", LOSS_TO_PRUNED), ("dense", LOSS_TO_DENSE)):
            checks.append(Check.at_most(f"points lost to the {name} float network, {mode}",
                                        round(100 * (floats[name] - value), 6), most, ".2f"))
    table = Table.of(f"LeNet-5 on {len(x):,} test images",
                     {"network": "", "images that saturate": ",d", "accuracy": ".2%"}, rows)
    notes = (f"Static exponents are calibrated on {CALIBRATION} training images where the full "
             f"data set is installed, else on the last {CALIBRATION} test images. "
             "The brightest grey, 255/256, lies half a step above the largest mantissa: a static "
             "input exponent counts that as saturation.",)
    return Result(title="Accuracy", tables=(table,), checks=tuple(checks), notes=notes)


def _float(model: torch.nn.Module, x: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        return accuracy(model.eval()(torch.from_numpy(x)), labels)


if __name__ == "__main__":
    main(measure, __doc__,
         ("--images", {"type": int, "default": 10_000, "help": "at most (%(default)s)"}))
