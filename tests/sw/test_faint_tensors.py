"""Numbers for which exponents are too large are told of, and the way out helps."""

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia import zoo
from celosia.compiler import Compiler
from celosia.faint_tensors import faint_tensors


class Scaled(nn.Module):
    """A convolution, one more of so many times its output, and that many times as much of it."""

    def __init__(self, inner: float, outer: float = 1.0, beside: bool = False,
                 bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer, self.beside = inner, outer, beside
        self.a, self.b = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(torch.relu(self.a(x) * self.inner)) * self.outer
        return y + x[:, :, 1:-1, 1:-1] if self.beside else y


def told(model: nn.Module, calibration=None, **options) -> list[str]:
    program = celosia.compile(model, (1, 2, 6, 6), calibration=calibration, **options)
    return [remark for remark in program.remarks if remark.startswith("no exponent is below")]


def x(scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(0).standard_normal((9, 2, 6, 6))).astype(np.float32)


def ratio(model: nn.Module, scale: float = 1.0) -> float:
    with torch.no_grad():
        wanted = model(torch.from_numpy(x())).numpy() * scale
    found = celosia.run(celosia.compile(model, (1, 2, 6, 6)), x()).answer * scale
    return 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())


@pytest.mark.parametrize("calibration", [None, x()])
def test_what_is_faint_is_told(calibration) -> None:
    line, = told(Scaled(1e-6), calibration)
    assert "numbers in a of about 2^-" in line and "weights of a of about 2^-2" in line
    assert ("expected" if calibration is None else "calibrated") in line
    line, = told(Scaled(1, 1e-9), calibration)
    assert "numbers in b of about 2^-" in line or "numbers in mul of about 2^-" in line
    assert not told(Scaled(1), calibration)
    assert not told(Scaled(1, 1e-9, beside=True), calibration)       # lost beside x anyway


@pytest.mark.parametrize("calibration", [None, x()])
def test_what_a_bias_hides_is_not_told(calibration) -> None:
    """Of the layer that reads it, or of one behind; a dead branch hides it, too."""
    assert told(Scaled(1e-6), calibration)
    assert not told(Scaled(1e-6, bias=True), calibration)
    deep = Scaled(1e-6)
    assert told(nn.Sequential(deep, nn.Conv2d(2, 2, 1, bias=False)), calibration)
    assert not told(nn.Sequential(deep, nn.Conv2d(2, 2, 1)), calibration)
    dead = nn.Conv2d(2, 2, 1)
    dead.bias.data.fill_(-3)
    assert not told(nn.Sequential(deep, dead, nn.ReLU(), nn.Conv2d(2, 2, 1)), calibration)
    wide = Scaled(1, 1e-9, bias=True)           # the bias is as small as what it hides
    assert told(wide, calibration)


def test_inputs_count() -> None:
    model = Scaled(1)
    assert not told(model, x(1e-6))         # the bias of what reads them is all that is left
    model.a.bias.data.zero_()
    assert "numbers in x of about 2^-" in told(model, x(1e-6))[0]
    assert not told(model, x(1e-3))


def test_what_it_says_helps() -> None:
    faint, large = Scaled(1e-7), Scaled(1e-7 * 2**12)
    for model in (faint, large):
        model.a.bias.data.zero_()
    line, = told(faint)
    lost = int(line.split("up to ")[1].split()[0])
    assert not told(Scaled(1e-7 * 2**lost))
    assert ratio(faint) < 20 < 35 < ratio(large)


@pytest.mark.parametrize("name", ["lenet5", "resnet-8", "ds-cnn", "mobilenet-v1", "u-net",
                                  "autoencoder", "wakeword"])
def test_usual_networks_have_none(name: str) -> None:
    entry = zoo.NETWORKS[name]
    graph = Compiler().graph(entry.make(), (1, *entry.shape))
    assert faint_tensors(graph, None, 8) == ()
