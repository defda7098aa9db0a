"""Inputs and outputs of several sizes in one block: each keeps its precision, or a remark tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import celosia
from celosia.accuracy import decibels_of
from celosia.compiler import Compiler
from celosia.faint_outputs import LEAST, faint_outputs
from celosia.noise import against_float
from celosia_spec.network_inputs import joined
from stream.compared import compare

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

TARGET = "ulx3s-85f"
Arrays = tuple[np.ndarray, ...]


class One(nn.Module):
    def __init__(self, function: Callable, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(*self.layers, x)


class Two(One):
    def forward(self, x, y):
        return self.function(*self.layers, x, y)


def normal(*sizes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=sizes).astype(np.float32)


def biased(size: float) -> nn.Conv2d:
    layer = nn.Conv2d(4, 3, 3, padding=1)
    layer.bias.data = torch.tensor([0.4, 1.0, 0.7]) * size
    return layer


def network(name: str, size: float) -> tuple[nn.Module, Arrays]:
    """Return a network, and inputs that make one of what it returns so many times larger."""
    torch.manual_seed(2)
    vectors = np.float32(size) * normal(48, 16), normal(48, 16, seed=1)
    if name == "copies of inputs":
        return Two(lambda x, y: (x + x, torch.cat([y, y], 1))), vectors
    if name == "layers of their own":
        return Two(lambda a, b, x, y: (a(x), b(y)), nn.Linear(16, 8), nn.Linear(16, 8)), vectors
    if name == "biases":
        return One(lambda a, e, x: (F.relu(a(x)), e(x)), biased(size),
                   nn.Conv2d(4, 2, 3, padding=1, bias=False)), (normal(48, 4, 8, 8),)
    assert name == "a layer that reads much smaller numbers"
    return One(lambda a, d, x: (lambda h: (h, d(torch.sigmoid(h))))(a(x)), nn.Linear(16, 8),
               nn.Linear(8, 4)), vectors[:1]


def alone(x: Arrays) -> np.ndarray | Arrays:
    return x if len(x) > 1 else x[0]


def ratios(model: nn.Module, program: celosia.Program, x: Arrays) -> list[float]:
    """Return each output's signal to noise, dB."""
    with torch.no_grad():
        wanted = model.eval()(*map(torch.from_numpy, x))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    found = celosia.run(program, alone(x)).answers.values()
    return [decibels_of(made, right.numpy()) for made, right in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("name, size", [
    ("copies of inputs", 10), ("copies of inputs", 100), ("layers of their own", 1000),
    ("layers of their own", 0.01), ("biases", 30), ("biases", 300),
    ("a layer that reads much smaller numbers", 100)])
@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_calibration_inputs_tell_how_large_outputs_are(name: str, size: float, exponents: str,
                                                       tmp_path: Path) -> None:
    model, x = network(name, size)
    program = celosia.compile(model, x, target=TARGET, exponents=exponents,
                              calibration=alone(tuple(part[:32] for part in x)))
    assert min(ratios(model, program, x)) > 25
    assert not [remark for remark in program.remarks if remark.startswith("output ")]
    source = program.graph.tensors[program.graph.input]
    whole = joined(program.takes, x, source.user_shape) if program.takes else x[0]
    assert against_float(program, model, whole).inputs == len(whole)
    compare(program.graph, program.array, whole[0])
    program.save(tmp_path / "a.celo")
    assert celosia.load(tmp_path / "a.celo").graph.tensors == program.graph.tensors


def test_sizes_that_were_only_estimated_are_told_of() -> None:
    model, x = network("biases", 300)
    program = celosia.compile(model, (1, 4, 8, 8), target=TARGET)
    assert min(ratios(model, program, x)) < 5
    assert program.remarks == (
        "outputs 0, 1 share one block exponent, and how large each is was estimated from the "
        "weights: give calibration inputs if one is much smaller than another",)


def test_an_output_that_loses_much_is_told_of(tmp_path: Path) -> None:
    """A ReLU6 keeps every tensor from being made larger."""
    torch.manual_seed(2)
    model = One(lambda a, e, x: (F.relu6(a(x)), 0.002 * e(x)), biased(30),
                nn.Conv2d(4, 2, 3, padding=1, bias=False))
    x = normal(48, 4, 8, 8)
    program = celosia.compile(model, x, target=TARGET, calibration=x)
    [first, second] = ratios(model, program, (x,))
    assert first > 30 > LEAST > second
    [told] = [remark for remark in program.remarks if remark.startswith("output ")]
    assert told.startswith("output 1: ") and told.endswith(
        " dB of signal to noise on the calibration inputs; `celosia compare --against float` tells "
        "which layer loses it")
    assert abs(float(told.split()[2]) - second) < 3
    program.save(tmp_path / "net.celo")
    assert celosia.load(tmp_path / "net.celo").remarks == program.remarks
    compiler = Compiler(target=TARGET)
    graph = compiler.graph(model, x)
    assert len(faint_outputs(graph, program, x)) == 1


@pytest.mark.parametrize("behind", [False, True])
def test_a_copy_leaves_out_what_nothing_reads(behind: bool) -> None:
    """The larger input is normalised, the smaller one copied beside it."""
    torch.manual_seed(2)
    model = Two(lambda a, x, y: (a if behind else nn.Identity())(torch.cat([(x - 30) / 30, y], 1)),
                nn.Conv2d(5, 4, 3))
    x = 30 * normal(48, 3, 8, 8) + 30, normal(48, 2, 8, 8, seed=1)
    program = celosia.compile(model, x, target=TARGET, calibration=tuple(p[:32] for p in x))
    assert ratios(model, program, x)[0] > 30
    assert not [remark for remark in program.remarks if remark.startswith(("output", "input"))]


def test_an_input_that_stays_small_is_told_of() -> None:
    """No input is made larger by more than 2^10."""
    torch.manual_seed(2)
    model = Two(lambda a, b, x, y: a(x) + b(y), nn.Linear(16, 8), nn.Linear(16, 8))
    x = np.float32(2**8) * normal(48, 16), np.float32(2**-8) * normal(48, 16, seed=1)
    program = celosia.compile(model, x, target=TARGET, calibration=x)
    [told] = [remark for remark in program.remarks if remark.startswith("input ")]
    assert told.startswith("input y: the inputs share one block exponent, and it is 2^") and \
        told.endswith(" times smaller than another; bring the inputs to one size outside the "
                      "network")
    near = x[0], np.float32(2**16) * x[1]
    program = celosia.compile(model, near, target=TARGET, calibration=near)
    assert not [remark for remark in program.remarks if remark.startswith("input ")]


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("bits", [None, 15])
def test_what_nothing_reads_is_stored_as_zeros(calibrated: bool, bits: int | None) -> None:
    torch.manual_seed(2)
    model = Two(lambda a, x, y: a(x), nn.Linear(16, 8))
    x = normal(48, 16), 1000 * normal(48, 16, seed=1)
    program = celosia.compile(model, x, target=TARGET, input_bits=bits,
                              calibration=x if calibrated else None)
    assert ratios(model, program, x)[0] > 35
    assert "input y: nothing reads it; zeros are stored for it" in program.remarks
    assert not any("share one block" in remark for remark in program.remarks)


def test_channels_that_nothing_reads_are_stored_as_zeros() -> None:
    torch.manual_seed(2)
    model = Two(lambda a, b, x, y: a(x) + b(y[:, :2]), nn.Conv2d(3, 4, 3), nn.Conv2d(2, 4, 3))
    x = normal(48, 3, 8, 8), normal(48, 4, 8, 8, seed=1)
    x[1][:, 2:] *= 1000
    program = celosia.compile(model, x, target=TARGET)
    assert ratios(model, program, x)[0] > 30
