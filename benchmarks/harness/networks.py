"""The networks and inputs that are measured."""

import numpy as np
import torch

import celosia
from celosia.compare import simulated_layers
from celosia.datasets import load_fashion_mnist, preprocess
from celosia.models import load_lenet5
from celosia_spec.errors import CelosiaError

__all__ = ["CALIBRATION", "MODES", "inputs", "layer_program", "lenet5", "simulated_cycles"]

MODES = ("dynamic", "static")
"""Both ways to choose a tensor's exponent."""

CALIBRATION = 500
"""Images that static exponents are calibrated on: training images where the full data set is
installed, else the last of the shipped test images."""

_SEED = 20


def inputs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first test images as float32 (N, 1, 28, 28) and labels int64 (N,).

    N is ``count`` or, where fewer are installed, all that there are.
    """
    images, labels = load_fashion_mnist("test")
    return preprocess(images[:count]), labels[:count]


def calibration() -> np.ndarray:
    """Return the calibration images, float32 (CALIBRATION, 1, 28, 28)."""
    try:
        images, _ = load_fashion_mnist("train")
        return preprocess(images[:CALIBRATION])
    except FileNotFoundError:
        images, _ = load_fashion_mnist("test")
        return preprocess(images[-CALIBRATION:])


def lenet5(target: str = "icebreaker", exponents: str = "dynamic") -> celosia.Program:
    """Return the pruned LeNet-5 that comes with the package, compiled."""
    samples = calibration() if exponents == "static" else None
    return celosia.compile(load_lenet5(pruned=True), np.zeros((1, 1, 28, 28), np.float32),
                           target=target, calibration=samples, exponents=exponents)


def layer_program(layer: torch.nn.Module, shape: tuple[int, ...], density: float, target: str,
                  exponents: str, lanes: int) -> tuple[celosia.Program, np.ndarray]:
    """Return a network of ``layer``, ReLU and a tiny reader, and one random input for it.

    layer   : a Conv2d or Linear; gets seeded random weights of which ``density`` are not zero.
    shape   : of one input, (C, H, W) or (F,).

    The reader (one output row) makes the layer an inner one: it stores elements of a map that is
    read again, as in a network. Its own figures are ``program.layers[0]``.
    """
    random = np.random.default_rng(_SEED)
    weights = random.normal(size=layer.weight.shape).astype(np.float32)
    weights.ravel()[random.permutation(weights.size)[round(density * weights.size):]] = 0
    bias = random.normal(scale=0.1, size=layer.bias.shape).astype(np.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(bias))
    torch.manual_seed(_SEED)
    rows = weights.shape[0]
    reader = torch.nn.Conv2d(rows, 1, 1) if weights.ndim == 4 else torch.nn.Linear(rows, 1)
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), reader).eval()
    x = random.random((64, *shape), np.float32)
    program = celosia.compile(model, x[:1], target=target, exponents=exponents, lanes=lanes,
                              calibration=x if exponents == "static" else None)
    return program, x[:1]


def simulated_cycles(program: celosia.Program, x: np.ndarray) -> np.ndarray:
    """Return the cycles of each layer for one input, int64 (layers,), on the verilated machine.

    CelosiaError where its outputs are not the golden model's.
    """
    found = celosia.run(program, x[:1], backend="verilator")
    golden = celosia.run(program, x[:1])
    if (found.mantissa != golden.mantissa).any() or (found.exponent != golden.exponent).any():
        raise CelosiaError("the simulated machine and the golden model differ; see "
                           "make bench-exactness")
    return simulated_layers(program)[0]
