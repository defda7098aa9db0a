"""Tensors of several sizes together, as PyTorch broadcasts them; one element that becomes a map."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import celosia
from celosia.compiler import Compiler
from celosia.expected import expected_exponents
from celosia_spec.errors import CompileError


class Net(nn.Module):
    """What a function makes of the input, and of layers that make 4 maps, 2 maps, 1 map of it."""

    def __init__(self, function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.a, self.b, self.c = (nn.Conv2d(3, rows, 3, padding=1) for rows in (4, 4, 1))
        self.vector, self.last = nn.Linear(3, 4), nn.LazyConv2d(3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        vector = self.vector(x.mean((2, 3)))[:, :, None, None]
        return self.last(self.function(self.a(x), self.b(x), self.c(x), vector))


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True)


NETWORKS = {
    "map + vector": lambda a, b, c, v: a + v,
    "vector + map": lambda a, b, c, v: v + torch.relu(a),
    "centred": lambda a, b, c, v: a - mean(a),
    "a multiple": lambda a, b, c, v: torch.sub(a, mean(b), alpha=2),
    "one map to all": lambda a, b, c, v: a + c,
    "one number to all": lambda a, b, c, v: a + mean(c),
    "lines": lambda a, b, c, v: a + b.mean(3, keepdim=True),
    "lines and columns": lambda a, b, c, v: a.mean(2, keepdim=True) + b.mean(3, keepdim=True),
    "larger": lambda a, b, c, v: torch.maximum(a, mean(b)),
    "smaller": lambda a, b, c, v: torch.minimum(v, b),
    "scaled and shifted": lambda a, b, c, v: a * v + mean(b),
    "expanded": lambda a, b, c, v: torch.cat([a, v.expand(-1, -1, *a.shape[2:])], 1),
    "expanded and added": lambda a, b, c, v: b + v.expand_as(b),
    "expanded mean": lambda a, b, c, v: torch.cat([a, mean(b).expand_as(b)], 1),
    "repeated": lambda a, b, c, v: torch.cat([a, v.repeat(1, 1, *a.shape[2:])], 1),
    "nearest": lambda a, b, c, v: torch.cat([a, F.interpolate(torch.relu(v), a.shape[2:])], 1),
    "bilinear": lambda a, b, c, v: torch.cat([a, F.interpolate(
        v, a.shape[2:], mode="bilinear")], 1),
}


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (1, 11), (12, 3)])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_torch(name: str, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((6, 3, *size)).astype(np.float32)
    net = Net(NETWORKS[name])
    net(torch.from_numpy(x))
    with torch.no_grad():
        wanted = net.eval()(torch.from_numpy(x)).numpy()
    program = celosia.compile(net, (1, 3, *size), target="ulx3s-25f")
    noise = celosia.run(program, x).answer - wanted
    assert 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()) > 25


def test_lines_and_vectors() -> None:
    class Lines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Conv1d(3, 4, 3), nn.Conv1d(3, 1, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x) + self.b(x)
            return self.c((y - y.mean(2, keepdim=True)).amax(2))

    x = np.random.default_rng(0).standard_normal((6, 3, 20)).astype(np.float32)
    net = Lines().eval()
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    noise = celosia.run(celosia.compile(net, (1, 3, 20)), x).answer - wanted
    assert 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()) > 30


def test_other_axes_are_refused() -> None:
    net = Net(lambda a, b, c, v: a + b[:, 0])
    net(torch.zeros(1, 3, 6, 6))
    with pytest.raises(CompileError, match="give both the same number of axes"):
        celosia.compile(net.eval(), (1, 3, 6, 6))


def test_what_is_spread_is_expected_to_be_as_large_as_what_it_is_of() -> None:
    net = Net(lambda a, b, c, v: torch.cat([a, v.expand(-1, -1, 9, 12)], 1))
    net(torch.zeros(1, 3, 9, 12))
    graph = Compiler().graph(net.eval(), (1, 3, 9, 12))
    expected = expected_exponents(graph)
    first, *others = [node.name for node in graph.nodes if node.fixed]
    vector = next(node.input for node in graph.nodes if node.name == first)
    assert graph.shapes[others[-1]] == (4, 9, 12)
    assert {expected[name] for name in (first, *others)} == {expected[vector]}
