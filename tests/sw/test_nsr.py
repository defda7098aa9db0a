"""The error model of block floating point beside what is measured."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from celosia.compress.precision.emulate import emulate
from celosia.compress.precision.nsr import array_nsr, combine, nsr
from celosia.compress.precision.partition import PARTITIONS
from celosia.models import ResNet
from celosia_spec.block import bfp
from celosia_spec.errors import ArgumentError

DIRECTED = ("zero", "up", "down")


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def product(weight: torch.Tensor) -> nn.Sequential:
    """Return O = W I as a network: I (1, K, 1, N) to O (1, M, 1, N)."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
    conv.weight = nn.Parameter(weight[:, :, None, None])
    return nn.Sequential(conv)


# One array


def test_one_block_by_hand():
    found = array_nsr(np.array([3.0, 1.3, 0.0, -0.7]), 4)       # exponent 1, step 1/2
    signal = 9 + 1.69 + 0.49
    assert found.predicted == pytest.approx(3 * 0.25 / 12 / signal)
    assert found.measured == pytest.approx((0.2**2 + 0.2**2) / signal)
    assert found.measured_db == pytest.approx(-10 * math.log10(found.measured))
    down = array_nsr(np.array([3.0, 1.3, 0.0, -0.7]), 4, rounding="down")
    assert down.predicted == pytest.approx(4 * found.predicted)
    assert down.measured == pytest.approx((0.3**2 + 0.3**2) / signal)


@pytest.mark.parametrize("bits", range(4, 11))
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_gaussian_arrays_within_15_percent(bits, axis):
    for x in (gaussian(64, 576), torch.relu(gaussian(576, 400, seed=1))):
        found = array_nsr(x, bits, axis)
        assert found.measured == pytest.approx(found.predicted, rel=0.15)


@pytest.mark.parametrize("rounding", DIRECTED)
def test_directed_rounding_costs_four_times_as_much(rounding):
    x = gaussian(64, 576)
    found, nearest = array_nsr(x, 8, 0, rounding), array_nsr(x, 8, 0)
    assert found.predicted == pytest.approx(4 * nearest.predicted)
    assert found.measured == pytest.approx(found.predicted, rel=0.05)


def test_numbers_that_are_zero_have_no_error():
    x = gaussian(100, 100)
    x[:, 50:] = 0
    found = array_nsr(x, 8)
    assert found == array_nsr(x[:, :50], 8)
    nothing = array_nsr(np.zeros(3), 8)
    assert math.isnan(nothing.predicted) and math.isnan(nothing.measured)
    assert array_nsr(np.ones(3), 8).measured_db == math.inf


# One layer


def test_combination_of_two_noises():
    first, second = (1 + 0.3 * gaussian(200_000, seed=seed).double() for seed in (1, 2))
    both = float((first * second - 1).square().mean())
    assert both == pytest.approx(combine(0.09, 0.09), rel=0.02)
    assert combine(0.09, 0.09) == pytest.approx(0.18 + 0.0081)


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("bits", [4, 6, 8, 10])
def test_one_product_within_15_percent(partition, bits):
    x = torch.relu(gaussian(576, 400, seed=1))[None, :, None, :]
    layer = nsr(product(gaussian(64, 576)), x, bits=bits, partition=partition).layers["0"]
    assert layer.shape == (64, 576, 400)
    for stage in (layer.weight, layer.formatted, layer.input, layer.output):
        assert stage.measured == pytest.approx(stage.predicted, rel=0.15)
    assert layer.input == layer.formatted       # nothing was inherited
    assert layer.output.predicted == pytest.approx(
        combine(layer.input.predicted, layer.weight.predicted))


def test_the_measured_output_is_that_of_integers():
    w, x = gaussian(8, 20), gaussian(20, 30, seed=1)
    found = nsr(product(w), x[None, :, None, :], bits=(5, 7)).layers["0"].output.measured
    mw, ew = bfp(w, 5, 0)
    mx, ex = bfp(x, 7)
    integers = mw.astype(np.int64) @ mx.astype(np.int64)
    y = np.ldexp(integers.astype(float), ew[:, None] - 3 + ex - 5)
    exact = w.double().numpy() @ x.double().numpy()
    assert found == pytest.approx(np.square(y - exact).sum() / np.square(exact).sum(), rel=1e-4)


def test_rows_of_different_scale_want_blocks_of_their_own():
    scale = 2.0 ** -torch.arange(64.0).div(8)[:, None]
    x = gaussian(100, 50, seed=1)[None, :, None, :]
    smallest = {}
    for case, w in (("equal", gaussian(64, 100)), ("different", gaussian(64, 100) * scale)):
        wanted = product(w)(x)[0, -1].detach()
        for name in PARTITIONS:
            y = emulate(product(w), weight_bits=8, activation_bits=12, partition=name)(x)[0, -1]
            smallest[case, name] = float((y - wanted).square().sum() / wanted.square().sum())
        error = {name: nsr(product(w), x, partition=name).layers["0"].weight for name in PARTITIONS}
        assert error["rows"] == error["rows-columns"] and error["whole"] == error["columns"]
        rows = [array_nsr(row, 8).measured * float(row.double().square().sum()) for row in w]
        assert error["rows"].measured == pytest.approx(sum(rows) / float(w.double().square().sum()))
    assert smallest["different", "rows"] < smallest["different", "whole"] / 1000
    assert smallest["different", "rows-columns"] < smallest["different", "columns"] / 1000
    assert smallest["equal", "rows"] > smallest["equal", "whole"] / 30


# A network


def chain(seed: int) -> nn.Sequential:
    """Return twelve random layers of 256 x 256 with ReLU."""
    layers: list[nn.Module] = []
    for index in range(12):
        linear = nn.Linear(256, 256, bias=False)
        linear.weight = nn.Parameter(gaussian(256, 256, seed=100 * seed + index) / math.sqrt(128))
        layers += [linear, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def test_twelve_layers_lose_what_the_model_says():
    x = torch.relu(gaussian(100, 256, seed=99))
    reports = [nsr(chain(seed), x) for seed in range(8)]
    outputs = [[layer.output for layer in report.layers.values()] for report in reports]
    # A random network's own gain along its mean signal makes single ones scatter by a decibel.
    gaps = np.array([[o.predicted_db - o.measured_db for o in row] for row in outputs])
    assert np.abs(gaps.mean(0)).max() < 0.5
    assert np.abs(gaps[:, 0]).max() < 0.4
    assert all(row[0].measured_db - row[-1].measured_db > 8 for row in outputs)
    layers = reports[0].layers
    assert list(layers) == [str(2 * index) for index in range(12)]
    for before, after in zip(list(layers.values()), list(layers.values())[1:], strict=False):
        inherited = before.output.predicted     # through ReLU unchanged
        assert after.input.predicted == pytest.approx(
            combine(inherited, after.formatted.predicted))


def test_bias_and_sum_carry_energies():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(64, 64, 1, bias=bias)
                                      for bias in (True, False, False))
            for seed, conv in enumerate((self.a, self.b, self.c)):
                conv.weight = nn.Parameter(gaussian(64, 64, 1, 1, seed=seed) / 8)
            nn.init.constant_(self.a.bias, 3.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.c(y + self.b(x))

    report = nsr(Block(), gaussian(20, 64, 8, 8, seed=5), bits=6)
    a, b, c = report.layers.values()
    assert a.output.predicted == pytest.approx(a.output.measured, rel=0.15)
    # y = a + 3 (energy 10 for 1), its error that of a; the sum holds 11, and both errors
    wanted = (a.output.predicted * 1 + b.output.predicted * 1) / 11
    inherited = (c.input.predicted - c.formatted.predicted) / (1 + c.formatted.predicted)
    assert inherited == pytest.approx(wanted, rel=0.05)
    measured = c.input.measured - c.formatted.measured
    assert measured == pytest.approx(wanted, rel=0.15)


def test_a_residual_network_and_what_is_left_behind():
    torch.manual_seed(0)
    model = ResNet(8, "A").train()
    before = copy.deepcopy(model.state_dict())
    x = gaussian(6, 3, 32, 32)
    report = nsr(model, x, bits=(9, 8), batch_size=4)
    assert next(iter(report.layers)) == "conv1" and len(report.layers) == 8
    assert report.choices == {"weight_bits": 9, "activation_bits": 8, "partition": "rows",
                              "rounding": "nearest-even", "inputs": 6}
    assert report.layers["layer2.0.conv1"].shape == (32, 144, 256)
    for layer in report.layers.values():
        for stage in (layer.weight, layer.formatted):
            assert stage.measured == pytest.approx(stage.predicted, rel=0.15)
    assert model.training and not any(p._forward_hooks for p in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    json.dumps(dataclasses.asdict(report), allow_nan=False)
    whole = nsr(model, x, bits=(9, 8))
    for name, layer in report.layers.items():
        assert layer.output.measured == pytest.approx(whole.layers[name].output.measured, rel=1e-3)


def test_a_layer_of_zeros_carries_nothing_on():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight)
    report = nsr(model, gaussian(5, 4))
    assert math.isnan(report.layers["0"].output.predicted)
    second = report.layers["2"]
    assert second.input.predicted == second.formatted.predicted > 0


def test_refusals():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    with pytest.raises(ArgumentError, match="layer 'layer' runs more than once"):
        nsr(Twice(), gaussian(1, 2))
    with pytest.raises(ArgumentError, match="no inputs"):
        nsr(product(gaussian(2, 2)), torch.zeros(0, 2, 1, 1))
    with pytest.raises(ArgumentError, match="activation_bits must be 2 to 24"):
        nsr(product(gaussian(2, 2)), gaussian(1, 2, 1, 1), bits=(8, 40))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_narrow_types_are_refused_and_the_way_out_works(kind):
    net, x = nn.Sequential(nn.Conv2d(1, 3, 3)).to(kind), torch.randn(2, 1, 6, 6)
    with pytest.raises(ArgumentError, match=r"computes in .*16, .*copy.deepcopy\(model\).float"):
        nsr(net, x)
    assert nsr(copy.deepcopy(net).float(), x).layers["0"].output.measured > 0


@pytest.mark.parametrize(("model", "inputs", "options", "message"), [
    (nn.ReLU(), torch.randn(2, 3), {}, "^the model has no Conv2d and no Linear layer"),
    (nn.Sequential(nn.Conv2d(4, 2, 3)), torch.randn(2, 3, 8, 8), {},
     "^the network does not run on the example input of shape \\(1, 3, 8, 8\\)"),
    (nn.Sequential(nn.Linear(3, 2)), torch.randn(2, 3), {"bits": (8, 8, 8)},
     "^bits must be one number or those of weights and of inputs, not"),
    (nn.Sequential(nn.Linear(3, 2)), torch.randn(2, 3), {"bits": 8.5},
     "^weight_bits must be a whole number, not 8.5$")])
def test_what_cannot_be_measured(model, inputs, options, message):
    with pytest.raises(ArgumentError, match=message):
        nsr(model, inputs, **options)
