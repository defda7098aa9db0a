"""What borders of maps and maps with straight lines between their elements cost beside zeros and
beside nearest elements, on the icebreaker; outputs are compared with torch's in float32.

Untrained layers, dynamic exponents, 8 bits, no calibration; sixteen random inputs.
"""

import argparse
import math
from collections.abc import Iterator

import numpy as np
import torch
from harness.command import main
from harness.result import Check, Result, Table
from torch import nn

import celosia

TARGET = "icebreaker"
LEAST, MOST = 35.0, 1.05
"""Decibels of every network, and the most that a border costs."""


def networks() -> Iterator[tuple[str, list[tuple[str, nn.Module]], tuple[int, int, int]]]:
    """Yield what is compared, the networks, the first of which the others stand beside, and their
    input's shape."""
    def conv(mode: str, **more: int) -> nn.Module:
        return nn.Conv2d(16, 16, 3, padding=1, padding_mode=mode, **more)

    modes = ("zeros", "replicate", "reflect", "circular")
    yield "3x3, 16 to 16, 32x32", [(mode, conv(mode)) for mode in modes], (16, 32, 32)
    yield "3x3 by channel, 16, 32x32", [(mode, conv(mode, groups=16)) for mode in modes], (
        16, 32, 32)
    enlarged = [("nearest", nn.Upsample(scale_factor=2)),
                ("bilinear", nn.Upsample(scale_factor=2, mode="bilinear"))]
    yield "3x3, 16 to 16, 16x16, twice as large, 3x3, 16 to 16", [
        (mode, nn.Sequential(conv("zeros"), nn.ReLU(), up, conv("zeros"))) for mode, up in enlarged
    ], (16, 16, 16)


def measure(arguments: argparse.Namespace) -> Result:
    """Compile all of them."""
    torch.set_num_threads(1)
    rows, checks = [], []
    for what, alike, shape in networks():
        first = 0
        for mode, model in alike:
            torch.manual_seed(0)
            for layer in model.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.reset_parameters()
            program = celosia.compile(model.eval(), (1, *shape), target=TARGET)
            cycles = program.predicted_cycles
            first = first or cycles
            rows.append([what, mode, cycles, cycles / first, _decibels(program, model, shape)])
            if mode in ("replicate", "reflect", "circular") and "channel" not in what:
                checks.append(Check.at_most(f"{what}, {mode}: times the cycles", cycles / first,
                                            MOST, ".3f"))
    checks.append(Check.at_least("dB of the worst outputs", min(row[-1] for row in rows), LEAST,
                                 ".1f"))
    table = Table.of("Borders and maps that are enlarged", {
        "layers": "", "mode": "", f"cycles, {TARGET}": ",d", "times the first": ".2f",
        "outputs, dB": ".1f"}, rows)
    return Result(title="Borders and enlarged maps", tables=(table,), checks=tuple(checks))


def _decibels(program: celosia.Program, model: nn.Module, shape: tuple[int, int, int]) -> float:
    x = np.random.default_rng(0).random((16, *shape), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    off = celosia.run(program, x).answer - wanted
    return 10 * math.log10(float(np.square(wanted).sum() / np.square(off).sum()))


if __name__ == "__main__":
    main(measure, __doc__)
