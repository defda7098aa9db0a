"""Several inputs and outputs in one block: signal to noise where one is larger than the other.

Of outputs two convolutions of one input, of inputs two vectors of 16, for the ULX3S-85F with
dynamic exponents. Weights are random, inputs normal; those of the larger input are as many times
smaller, so that both count as much. Outputs are compared with torch's in float32.
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
    table = Table.of("Two outputs, ulx3s-85f, 8 / 8", {
        "outputs": "", "the first is larger by": "d", "first, dB": ".1f", "second, dB": ".1f",
        "cycles": ",d"}, rows)
    inputs = Table.of("Two inputs, ulx3s-85f, 8 / 8: dB of what is made of the smaller one", {
        "read by": "", "first larger by": "d", "8 bits": ".1f", "input_bits=15": ".1f",
        "calibrated": ".1f", "cycles": ",d", "cycles of 15 bits": ",d"},
        [[name, factor, *_inputs(apart, factor)]
         for name, apart in (("layers of their own", True), ("one layer", False))
         for factor in FACTORS])
    near = min(min(row[2:4]) for row in rows if row[1] <= 100)
    return Result(title="Several inputs and outputs", tables=(inputs, table), checks=(
        Check.at_least("dB of an output up to 100 times smaller than another", near, LEAST,
                       ".1f"),
        Check.at_least("dB where an input is up to 1,000 times smaller, calibrated",
                       min(row[4] for row in inputs.rows), LEAST, ".1f")))


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


def _inputs(apart: bool, factor: int) -> list[float]:
    """Return signal to noise where the smaller of two inputs is read, dB: with 8 bits, with 15, and
    with 8 and calibration inputs; and the cycles of the first two."""
    torch.manual_seed(1)
    layers = {"a": nn.Linear(16, 8), "b": nn.Linear(16, 8)} if apart else {"a": nn.Linear(32, 8)}
    model = Forward((lambda net, a, b: (net.a(a), net.b(b))) if apart else (
        lambda net, a, b: net.a(torch.cat([a, b], 1))), **layers).eval()
    with torch.no_grad():
        model.a.weight[:, :16] /= factor
    x = factor * torch.randn(64, 16), torch.randn(64, 16)
    with torch.no_grad():
        returned = model(*x)
    wanted = (returned[1] if apart else returned).numpy()
    found, cycles = [], []
    for settings in ({}, {"input_bits": 15},
                     {"calibration": tuple(part[:32] for part in x), "accuracy": "none"}):
        program = celosia.compile(model, tuple(part[:1] for part in x), target="ulx3s-85f",
                                  **settings)
        answers = list(celosia.run(program, x).answers.values())
        found.append(_decibels(wanted, answers[-1]))
        cycles.append(program.predicted_cycles)
    return [*found, *cycles[:2]]


def _decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


if __name__ == "__main__":
    main(measure, __doc__)
