"""Functions as straight pieces: how far off they are, and what they cost a small network.

The pieces alone are compared with torch's function on normal inputs. The network (a convolution,
the function, a convolution of stride 2, ReLU, a linear layer; random weights, eight seeds, 32
inputs each) is compiled for the iCEBreaker with dynamic exponents; its outputs are compared with
torch's in float32. How small numbers fare is seen in a smaller one (linear, SiLU, linear, without
biases), whose inputs are scaled down.
"""

import argparse

import numpy as np
import torch
from harness.command import main
from harness.result import Check, Result, Table
from torch import nn

import celosia
from celosia.pieces import fit

FUNCTIONS: dict[str, nn.Module] = {
    "Sigmoid": nn.Sigmoid(), "Tanh": nn.Tanh(), "SiLU": nn.SiLU(),
    "GELU": nn.GELU(), "ELU": nn.ELU(), "SELU": nn.SELU(), "Hardswish": nn.Hardswish(),
    "Mish": nn.Mish(), "Softplus": nn.Softplus(), "Softsign": nn.Softsign()}
SHAPE = (1, 12, 12)
SEEDS, INPUTS = 8, 32
SCALES = (1.0, 0.1, 0.03, 0.01, 0.001)
"""Of the inputs of the network that has small numbers."""

LEAST = 40.0
"""dB that pieces must have: less noise than 8 bits make in the network with ReLU."""


def measure(arguments: argparse.Namespace) -> Result:
    """Compare every function and the network with it."""
    torch.set_num_threads(1)
    rows: list[list] = []
    checks = []
    ratio, cycles = _network(nn.ReLU())
    rows.append(["ReLU", None, None, None, None, ratio, cycles])
    for name, function in FUNCTIONS.items():
        (pieces, off, small, alone), (ratio, cycles) = _alone(function), _network(function)
        rows.append([name, pieces, off, small, alone, ratio, cycles])
        checks.append(Check.at_least(f"dB of the pieces of {name}", alone, LEAST, ".1f"))
    table = Table.of(
        "Functions, and a small network with them, iCEBreaker, 16 lanes, 8 / 8",
        {"function": "", "pieces": "d", "off by, at most": ".2%",
         "pieces alone, inputs of 0.1, dB": ".1f", "inputs of 1, dB": ".1f",
         "network, dB": ".1f", "cycles": ",d"}, rows)
    faint = Table.of("SiLU of small numbers, iCEBreaker, 8 / 8", {
        "deviation of what it reads": ".4f", "outputs, dB": ".1f"},
        [_faint(scale) for scale in SCALES])
    return Result(title="Functions in pieces", tables=(table, faint), checks=tuple(checks),
                  notes=("Off by: a share of the function's span between -4 and 4. The function "
                         "works on 600 elements of the network.",))


def _alone(function: nn.Module) -> tuple[int, float, float, float]:
    """Return the number of pieces, how far they are off at most, and their ratio to the function
    on normal inputs of a deviation of 0.1 and of 1, dB."""
    def exact(x: np.ndarray) -> np.ndarray:
        return function(torch.from_numpy(x)).numpy()

    pieces, off = fit(exact)
    x = np.random.default_rng(0).standard_normal(100_000)
    small, alone = (_decibels(exact(scale * x), pieces(scale * x)) for scale in (0.1, 1.0))
    return len(pieces.values) - 1, off, small, alone


def _network(function: nn.Module) -> tuple[float, int]:
    """Return the ratio of the outputs to torch's, dB, mean of all seeds, and the cycles."""
    ratios, cycles = [], 0
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 6, 3), function, nn.Conv2d(6, 4, 3, stride=2),
                              nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
        x = 2 * torch.randn(INPUTS, *SHAPE)
        program = celosia.compile(model, (1, *SHAPE), target="icebreaker")
        with torch.no_grad():
            ratios.append(_decibels(model(x).numpy(), celosia.run(program, x.numpy()).values))
        cycles = program.predicted_cycles
    return float(np.mean(ratios)), cycles


def _faint(scale: float) -> list[float]:
    """Return the deviation of what SiLU reads, and the ratio of the outputs to torch's, dB."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8, bias=False), nn.SiLU(), nn.Linear(8, 4, bias=False))
    x = scale * np.random.default_rng(0).standard_normal((256, 16)).astype(np.float32)
    found = celosia.run(celosia.compile(model.eval(), x[:1]), x).answer
    with torch.no_grad():
        read, wanted = model[0](torch.from_numpy(x)), model(torch.from_numpy(x))
    return [float(read.std()), _decibels(wanted.numpy(), found)]


def _decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


if __name__ == "__main__":
    main(measure, __doc__)
