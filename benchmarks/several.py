"""Several outputs in one block: signal to noise of each where one is larger than the other.

Two convolutions of one input (random weights, 16 normal inputs), for the ULX3S-85F with dynamic
exponents; outputs are compared with torch's in float32.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from harness.command import main
from harness.kinds import Forward
from harness.result import Check, Result, Table
from torch import nn
from torch.nn import functional as F

import celosia

SHAPE = (1, 4, 8, 8)
FACTORS = (1, 10, 100, 1000)
LEAST = 30.0
"""dB that both outputs must have where one is up to 100 times larger."""

OUTPUTS: dict[str, Callable] = {
    "of one layer": lambda factor: lambda net, x: (factor * net.a(x), net.b(x)),
    "copied: one has a ReLU": lambda factor: lambda net, x: (factor * F.relu(net.a(x)), net.b(x)),
}


def measure(arguments: argparse.Namespace) -> Result:
    """Measure both outputs at every factor."""
    torch.set_num_threads(1)
    rows: list[list] = []
    for name, make in OUTPUTS.items():
        rows += [[name, factor, *_outputs(make(factor))] for factor in FACTORS]
    table = Table.of("Two outputs, ulx3s-85f, 16 lanes, 8 / 8", {
        "outputs": "", "the first is larger by": "d", "first, dB": ".1f", "second, dB": ".1f",
        "cycles": ",d"}, rows)
    near = min(min(row[2:4]) for row in rows if row[1] <= 100)
    return Result(title="Several outputs", tables=(table,), checks=(
        Check.at_least("dB of an output up to 100 times smaller than another", near, LEAST,
                       ".1f"),))


def _outputs(function: Callable) -> tuple[float, float, int]:
    """Return each output's signal to noise, dB, and the cycles."""
    torch.manual_seed(0)
    model = Forward(function, a=nn.Conv2d(4, 3, 3, padding=1),
                    b=nn.Conv2d(4, 2, 3, padding=1)).eval()
    x = torch.randn(16, *SHAPE[1:])
    program = celosia.compile(model, SHAPE, target="ulx3s-85f")
    with torch.no_grad():
        wanted = model(x)
    found = celosia.run(program, x).answers.values()
    first, second = (_decibels(right.numpy(), made)
                     for right, made in zip(wanted, found, strict=True))
    return first, second, program.predicted_cycles


def _decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


if __name__ == "__main__":
    main(measure, __doc__)
