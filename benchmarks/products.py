"""Products of two tensors: what networks with gates lose, with inputs of several sizes, and cycles.

Small networks with random weights, four seeds: a block of MobileNetV3 with squeeze-and-excite,
gated linear units, a map gated by a layer of its own, and products of vectors. They are compiled
for the ULX3S with 32 calibration inputs or without any, dynamic and static exponents, and their
outputs for 64 other inputs are compared with torch's in float32.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from harness.command import main
from harness.kinds import Forward
from harness.result import Check, Result, Table
from torch import nn

import celosia

TARGET, SEEDS, CALIBRATION, INPUTS = "ulx3s-85f", 4, 32, 64
SIZES = (0.01, 1.0, 100.0)
LEAST = 25.0
"""dB that outputs must have with calibration inputs."""


def _normalised(layer: nn.Conv2d, *more: nn.Module) -> nn.Sequential:
    norm = nn.BatchNorm2d(layer.out_channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, 0, 0.3)
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(layer, norm, *more)


def _block(gate: Callable | None) -> nn.Module:
    """MobileNetV3's, 24 channels of 8 x 8 within."""
    def forward(net: Forward, x: torch.Tensor) -> torch.Tensor:
        x = net.first(x)
        y = net.deep(net.wide(x))
        if gate is not None:
            y = y * gate(net.excite(F.relu(net.squeeze(y.mean((2, 3), keepdim=True)))))
        return net.last((x + net.narrow(y)).mean((2, 3)))

    return Forward(
        forward, first=_normalised(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()),
        wide=_normalised(nn.Conv2d(8, 24, 1), nn.ReLU()), last=nn.Linear(8, 10),
        deep=_normalised(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU()),
        squeeze=nn.Conv2d(24, 6, 1), excite=nn.Conv2d(6, 24, 1),
        narrow=_normalised(nn.Conv2d(24, 8, 1)))


def _map(function: Callable, channels: int = 8) -> nn.Module:
    return Forward(lambda net, x: net.last(function(net, net.first(x))).mean((2, 3)),
                   first=nn.Conv2d(3, channels, 3), gate=nn.Conv2d(8, 8, 1),
                   last=nn.Conv2d(8, 4, 3))


def _vectors(function: Callable) -> nn.Module:
    return Forward(lambda net, x: net.last(function(net.left(x), net.right(x))),
                   left=nn.Linear(32, 16), right=nn.Linear(32, 16), last=nn.Linear(16, 4))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "block of MobileNetV3, no gate": (lambda: _block(None), (3, 16, 16)),
    "with squeeze-and-excite, Hardsigmoid": (lambda: _block(F.hardsigmoid), (3, 16, 16)),
    "with squeeze-and-excite, Sigmoid": (lambda: _block(torch.sigmoid), (3, 16, 16)),
    "GLU of a map": (lambda: _map(lambda net, y: F.glu(y, 1), 16), (3, 10, 10)),
    "y * sigmoid(conv(y))": (lambda: _map(lambda net, y: y * torch.sigmoid(net.gate(y))),
                             (3, 10, 10)),
    "GLU of a vector": (lambda: Forward(lambda net, x: net.last(F.glu(net.first(x), 1)),
                                        first=nn.Linear(32, 32), last=nn.Linear(16, 4)), (32,)),
    "a * b": (lambda: _vectors(lambda a, b: a * b), (32,)),
    "relu(a) * relu(b)": (lambda: _vectors(lambda a, b: a.relu() * b.relu()), (32,)),
    "a * a + b": (lambda: _vectors(lambda a, b: a * a + b), (32,))}


def measure(arguments: argparse.Namespace) -> Result:
    """Compile every network with inputs of every size."""
    torch.set_num_threads(1)
    rows, worst = [], np.inf
    for name, (make, shape) in NETWORKS.items():
        cells, cycles = [], 0
        for size in SIZES:
            found = [_measured(make, shape, size, seed) for seed in range(SEEDS)]
            ratios = np.mean([ratios for ratios, _ in found], axis=0)
            worst = min(worst, ratios[1])
            cells += ratios.tolist()
            cycles = found[0][1]
        rows.append([name, *cells, cycles])
    columns = {f"inputs of {size:g}: {way}": ".1f" for size in SIZES
               for way in ("estimated", "calibrated", "static")}
    table = Table.of("Outputs, dB, mean of four seeds, ULX3S 85F, 8 / 8",
                     {"network": "", **columns, "cycles": ",d"}, rows)
    return Result(title="Products of two tensors", tables=(table,), checks=(
        Check.at_least("dB of the worst network with calibration inputs", float(worst), LEAST,
                       ".1f"),),
        notes=("Estimated: without calibration inputs. Cycles are those of the pieces for inputs "
               "of 100.",))


def _measured(make: Callable[[], nn.Module], shape: tuple[int, ...], size: float,
              seed: int) -> tuple[list[float], int]:
    """Return the ratio of the outputs to torch's, dB, without calibration inputs, with such, and
    with static exponents; and the cycles."""
    torch.manual_seed(seed)
    model = make().eval()
    rng = np.random.default_rng(seed)
    x = (size * rng.standard_normal((CALIBRATION + INPUTS, *shape))).astype(np.float32)
    given, others = x[:CALIBRATION], x[CALIBRATION:]
    with torch.no_grad():
        wanted = model(torch.from_numpy(others)).numpy()
    ratios, cycles = [], 0
    for settings in ({}, {"calibration": given}, {"calibration": given, "exponents": "static"}):
        program = celosia.compile(model, (1, *shape), target=TARGET, accuracy="none", **settings)
        noise = celosia.run(program, others).answer - wanted
        ratios.append(float(10 * np.log10(np.square(wanted).sum() / np.square(noise).sum())))
        cycles = program.predicted_cycles
    return ratios, cycles


if __name__ == "__main__":
    main(measure, __doc__)
