"""Trained ResNets on CIFAR-10, as the accelerator computes them: the golden model's answers.

The given ResNet-20 and ResNet-56 without any training, with mantissas of 8, 6 and 5 bits, dynamic
and static exponents, and the passes for accuracy, which see training pictures (CELOSIA_EXPERIMENTS
and CELOSIA_CIFAR10, see benchmarks/harness/pictures.py). Each finished row is kept in
build/given_resnets, so that a run that was stopped goes on.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from harness.command import main
from harness.networks import MODES
from harness.pictures import CIFAR10, cifar10, given_resnet, top1
from harness.result import Check, Result, Table

import celosia
from celosia.cli.progress import progress
from celosia.evaluate import accuracy

KEPT = Path("build") / "given_resnets"
TARGET = "ulx3s-85f"
CALIBRATION = 256
PICTURES = {20: 10_000, 56: 2_000}
"""The network's depth, and on how many pictures it is measured: the deeper takes three times as
long."""

MOST_LOST = {8: 0.1, 6: 1.0, 5: 3.5}
"""Points that may be lost to the float network, to the bits of weights and activations."""


def measure(arguments: argparse.Namespace) -> Result:
    """Measure what is not kept yet, and make the table."""
    samples = cifar10("train", CALIBRATION)[0].numpy()
    rows, checks = [], []
    for depth in arguments.depths:
        pictures, answers = cifar10("test", min(arguments.pictures, PICTURES[depth]))
        x, labels = pictures.numpy(), answers.numpy()
        exact = top1(given_resnet(depth), pictures, answers)
        rows.append([f"ResNet-{depth}", len(x), "float32", None, exact, None])
        for bits, most in MOST_LOST.items():
            for mode in MODES:
                found = _golden(depth, bits, mode, samples, x, labels)
                lost = round(100 * (exact - found), 6)
                rows.append([f"ResNet-{depth}", len(x), f"{bits} / {bits}", mode, found, lost])
                checks.append(Check.at_most(
                    f"points lost by ResNet-{depth}, {bits} / {bits}, {mode}", lost, most, ".2f"))
    table = Table.of("Golden model",
                     {"network": "", "pictures": ",d", "bits": "", "exponents": "",
                      "accuracy": ".2%", "points lost": ".2f"}, rows)
    notes = (f"{CIFAR10}, the first test pictures; networks with the given weights, trained on "
             f"the original pictures. Static exponents and passes are of {CALIBRATION} training "
             "pictures.",)
    return Result(title="Given ResNets", tables=(table,), checks=tuple(checks), notes=notes)


def _golden(depth: int, bits: int, mode: str, samples: np.ndarray, x: np.ndarray,
            labels: np.ndarray) -> float:
    """Return the accuracy of the golden model, kept or measured."""
    kept = KEPT / f"resnet{depth}-{bits}-{mode}-{len(x)}.json"
    if not kept.exists():
        program = celosia.compile(given_resnet(depth), x[:1], target=TARGET, exponents=mode,
                                  weight_bits=bits, activation_bits=bits, calibration=samples)
        with progress(f"ResNet-{depth}, {bits} bits, {mode}") as report:
            found = celosia.run(program, x, progress=report)
        KEPT.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(accuracy(found.mantissa, labels)))
    return float(json.loads(kept.read_text()))


if __name__ == "__main__":
    main(measure, __doc__,
         ("--pictures", {"type": int, "default": 10_000, "help": "at most (%(default)s)"}),
         ("--depths", {"type": int, "nargs": "+", "choices": (20, 56), "default": (20, 56),
                       "help": "of the networks (20 56)"}))
