"""Mantissas of several widths: what the pruned LeNet-5 loses, and what its cycles and weights are.

The first of the test images that come with Celosia, dynamic exponents, nothing done for accuracy:
what `celosia check lenet5-pruned --bits` measures on them.
"""

import argparse

from harness.command import main
from harness.result import Check, Result, Table

from celosia.datasets import shipped_test_images
from celosia.models import LENET5_PREPROCESSING, load_lenet5
from celosia.widths import widths

BITS = ((8, 8), (6, 8), (5, 8), (4, 8), (6, 6), (5, 5), (4, 4))
"""Weights and activations."""


def measure(arguments: argparse.Namespace) -> Result:
    """Measure the network at every width."""
    images, labels = (part[:arguments.images] for part in shipped_test_images())
    inputs = LENET5_PREPROCESSING.inputs(images[:, None])
    found = widths(load_lenet5(pruned=True), inputs[:1], bits=BITS, calibration=inputs,
                   labels=labels, accuracy="none")
    rows = [[f"{one.weight_bits} / {one.activation_bits}", one.ratio, one.agreement, one.accuracy,
             one.cycles, None if one.weight_bytes is None else one.weight_bytes / 1024]
            for one in found.widths]
    table = Table.of(
        f"LeNet-5, pruned, {found.target}, {found.inputs:,} images", {
            "weights / activations": "", "dB": ".1f", "as in float": ".1%", "right": ".1%",
            "cycles": ",d", "weights, KiB": ".1f"}, rows)
    assert found.accuracy is not None and found.widths[0].accuracy is not None
    return Result(
        title="Widths", tables=(table,), checks=(Check.at_most(
            "points of accuracy that 8 / 8 lose", 100 * (found.accuracy - found.widths[0].accuracy),
            0.5, ".1f"),),
        notes=(f"The float network is right for {found.accuracy:.1%}.",))


if __name__ == "__main__":
    main(measure, __doc__, ("--images", {"type": int, "default": 500,
                                         "help": "at most (%(default)s)"}))
