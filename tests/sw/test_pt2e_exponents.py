"""What scales in quantised programs of PyTorch become, and where they say nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import celosia
from celosia import original
from celosia.accuracy import decibels_of, values_of
from celosia.compiler import Compiler
from celosia.fit import check
from celosia.passes import optimise
from celosia.range_exponents import ranges
from celosia_spec.errors import ArgumentError, CompileError
from quantisers import (
    INT8,
    OPS,
    UINT8,
    Body,
    X,
    exponents,
    imported,
    rounded,
    static,
    torch_outputs,
)


def residual(net: Body, x: torch.Tensor) -> torch.Tensor:
    return rounded(F.relu(rounded(net.side(x), .02, 9) + x), .03, 0, UINT8)


def joined(net: Body, x: torch.Tensor) -> torch.Tensor:
    side = rounded(F.relu(net.side(x)), .02, 0, UINT8)
    return rounded(torch.cat([x[:, :2], side[:, 2:]], 1), .023, -128)


def shuffled(net: Body, x: torch.Tensor) -> torch.Tensor:
    """With quantisers between views that are no maps."""
    x = rounded(x.reshape(1, 2, 2, 6, 6), .01, -128)
    return rounded(rounded(x.transpose(1, 2), .01, -128).reshape(1, 4, 6, 6), .01, -128)


def pooled(net: Body, x: torch.Tensor) -> torch.Tensor:
    x = F.avg_pool2d(rounded(net.side(x), .02), 3, stride=1, padding=1)
    return rounded(F.max_pool2d(rounded(x, .01), 3, stride=1), .01)[:, :, :3, :3]


def curved(net: Body, x: torch.Tensor) -> torch.Tensor:
    """SiLU, with its factors rounded."""
    x = rounded(net.side(x), .02)
    return rounded(x * rounded(torch.sigmoid(x), 1 / 256, 0, UINT8), .02)


def by_channel(net: Body, x: torch.Tensor) -> torch.Tensor:
    scales, zeros = torch.tensor([.01, .02, .02, .01]), torch.tensor([0, 3, -3, 0])
    args = scales, zeros, 1, *INT8
    return OPS.dequantize_per_channel(OPS.quantize_per_channel(net.side(x), *args), *args)


def among_whole_numbers(net: Body, x: torch.Tensor) -> torch.Tensor:
    """Moved and pooled while they are whole numbers."""
    args = .02, 130, 0, 255, torch.uint8
    m = OPS.quantize_per_tensor(net.side(x), *args)
    m = torch.cat([m[:, 2:], m[:, :2]], 1)
    return OPS.dequantize_per_tensor(m, *args)


def joined_before(net: Body, x: torch.Tensor) -> torch.Tensor:
    """What is joined goes through a ReLU and a depthwise layer, which work on each part."""
    side = rounded(net.side(x), .02)
    x = rounded(F.relu(torch.cat([side[:, :2], -x[:, 2:]], 1)), .011, -128)
    return rounded(F.relu(net.each(x)), .008, -128)


def normalised(net: Body, x: torch.Tensor) -> torch.Tensor:
    return rounded(F.relu(net.norm(net.side(x))), .02, -128)


PARTS = {part.__name__: part for part in (
    residual, joined, joined_before, normalised, shuffled, pooled, curved, by_channel,
    among_whole_numbers)}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_rounded_on_the_way(name: str) -> None:
    """The original as torch computes it; and static exponents that clip no more than it does."""
    model = Body(PARTS[name])
    wanted, graph = torch_outputs(model), imported(model)
    near = decibels_of(original.outputs(graph, X).reshape(wanted.shape), wanted)
    assert near > (25 if name == "curved" else 100)     # a curve is pieces, rounded at its end
    if name != "curved":        # whose pieces have scales of their own
        found = values_of(static(graph), X).reshape(wanted.shape)
        assert decibels_of(found, wanted) > 23
    dynamic = Compiler().quantised(optimise(graph), None)
    assert decibels_of(values_of(dynamic, X).reshape(wanted.shape), wanted) > 25


def test_a_range_that_is_all_that_is_left_of_a_relu() -> None:
    model = Body(lambda net, x: rounded(net.side(x), .02, 0, UINT8))
    graph = optimise(imported(model))
    side = next(node for node in graph.nodes if node.name == "side")
    assert side.epilogue.activation.bounds[0] == 0
    assert decibels_of(values_of(static(imported(model)), X), torch_outputs(model)) > 28


def test_unknown_ranges_are_named_or_follow() -> None:
    """A mean lies within its input, a clamp within its bounds, the output's sums within what its
    weights make of its input; what else has no scale is refused by name."""
    class Net(nn.Module):
        def __init__(self, between: nn.Module) -> None:
            super().__init__()
            self.a, self.between, self.b = nn.Conv2d(2, 4, 3), between, nn.Linear(4, 3)

        def forward(self, x):
            x = self.between(rounded(self.a(rounded(x, .03)), .02))
            return self.b(x.mean((2, 3)))

    torch.manual_seed(0)
    plain = imported(Net(nn.Identity()))
    found = exponents(static(plain))
    assert (found["x"], found["a"]) == (1, 1)       # 3.84 and 2.56
    assert found["mean"] == 1
    linear = next(node for node in optimise(plain).nodes if node.name == "b")
    most = (np.abs(linear.weight).sum(axis=(1, 2, 3)) * 2.56 + np.abs(linear.bias)).max()
    assert found["b"] == int(np.floor(np.log2(most)))
    clamped = Net(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6()))
    assert exponents(static(imported(clamped)))["between.0"] == 2
    unknown = Net(nn.Conv2d(4, 4, 1))
    with pytest.raises(CompileError, match=r"^between \(tensor\): the network has no scale for it, "
                                           r"which .*; give calibration inputs, or use "
                                           r"exponents='dynamic' \["):
        celosia.compile(unknown.eval(), (1, 2, 6, 6), exponents="static")
    report = check(unknown, (1, 2, 6, 6), targets="icebreaker", exponents="static").targets[0]
    assert "no scale for it" in report.problems[0].problem
    calibrated = exponents(static(imported(unknown), X))
    assert calibrated["between"] in range(-3, 2) and calibrated["a"] == 1


def rounded_before_the_sum(net: Body, x: torch.Tensor) -> torch.Tensor:
    return rounded(net.side(x), .002) + rounded(x, .01)


def rounded_before_the_norm(net: Body, x: torch.Tensor) -> torch.Tensor:
    return net.norm(rounded(net.side(x), .002))


@pytest.mark.parametrize("part", [rounded_before_the_sum, rounded_before_the_norm])
def test_a_scale_is_not_that_of_what_comes_after(part: Callable) -> None:
    """Nothing is stored before the sum, and what is stored behind it has no scale."""
    with pytest.raises(CompileError, match=r"^side \(tensor\): the network has no scale for it"):
        static(imported(Body(part)))


def test_calibration_decides_where_no_scale_does() -> None:
    """Of a float network with a clamp, too: its bound may be far away."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.Conv2d(4, 2, 3)).eval()
    assert ranges(optimise(imported(model)))["0"] == (0, 6)
    assert exponents(static(imported(model), X))["0"] < 2
    with pytest.raises(ArgumentError, match="static exponents need calibration inputs"):
        celosia.compile(model, X[:1], exponents="static")
    with pytest.raises(ArgumentError, match="static exponents need calibration inputs"):
        check(model, X[:1], exponents="static")


def test_a_range_beyond_all_exponents() -> None:
    model = Body(lambda net, x: rounded(net.side(x), 1e6))
    with pytest.raises(CompileError, match=r"up to 1\.28e\+08 through, .* exponent 26, above 15; "):
        static(imported(model))
    celosia.compile(model.eval(), X[:1])
