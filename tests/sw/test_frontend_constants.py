"""What a model computes with constants: folded while compiling, or a BatchNorm of constants."""

from pathlib import Path

import numpy as np
import pytest

from celosia.graph import BatchNorm, Graph
from celosia.passes import optimise
from celosia_spec.errors import CompileError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from beside_torch import snr  # noqa: E402
from celosia.frontend import import_model  # noqa: E402


class Net(nn.Module):
    """A forward pass given as a function of (module, x), with constants and layers of its own."""

    def __init__(self, forward, **parts) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, torch.as_tensor(part))

    def forward(self, x):
        return self.run(self, x)


def compiled(model: nn.Module, shape: tuple[int, ...]) -> tuple[Graph, float]:
    """Return the optimised graph and the decibels of the golden model, 9-bit, against PyTorch."""
    graph = import_model(model.eval(), np.zeros(shape, np.float32))
    return optimise(graph), snr(model, graph, shape)


def kinds(graph: Graph) -> list[str]:
    return [f"{node.name} {node.kind}" for node in graph.nodes]


MEAN, DEVIATION = [[[0.5]], [[0.4]], [[0.3]]], [[[0.2]], [[0.25]], [[0.3]]]
CONV, PADDED = (lambda: nn.Conv2d(3, 4, 3)), (lambda: nn.Conv2d(3, 4, 3, padding=1))
MAP, VECTOR = (1, 3, 6, 6), (1, 8)



def normalize(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """torchvision.transforms.Normalize: lists made tensors, a check of them, work in place."""
    mean = torch.as_tensor([0.5, 0.4, 0.3], dtype=x.dtype, device=x.device)
    deviation = torch.as_tensor([0.2, 0.25, 0.3], dtype=x.dtype, device=x.device)
    x = x.clone()
    if (deviation == 0).any():
        raise ValueError("division by zero")
    return m.conv(x.sub_(mean.view(-1, 1, 1)).div_(deviation.view(-1, 1, 1)))


FOLDED = {      # the layers that are left: none for the constants
    "normalised": (lambda m, x: m.conv((x - m.mean) / m.deviation), MAP, ["conv conv"]),
    "as torchvision's Normalize": (normalize, MAP, ["conv conv"]),
    "pixels, then normalised": (lambda m, x: m.conv((x / 255 - m.mean) / m.deviation), MAP,
                                ["conv conv"]),
    "from the right": (lambda m, x: m.conv(1 - x), MAP, ["conv conv"]),
    "scaled, then padded": (lambda m, x: m.conv(F.pad(x * 2, (1, 0, 1, 1))), MAP, ["conv conv"]),
    "flattened": (lambda m, x: m.fc(((x - m.mean) / m.deviation).flatten(1)), MAP, ["fc linear"]),
    "behind flattening": (lambda m, x: m.fc((x.flatten(1) - 0.5) / 0.25), MAP, ["fc linear"]),
    "bias added": (lambda m, x: m.padded(x) + m.four, MAP, ["padded conv"]),
    "scaled behind": (lambda m, x: F.relu(m.padded(x) * m.four - 1), MAP, ["padded conv"]),
    "all behind": (lambda m, x: -(1 - m.head(x) / 3) * 2, VECTOR, ["head linear"]),
    "alpha": (lambda m, x: torch.sub(m.head(x), m.three, alpha=2), VECTOR, ["head linear"]),
    "of a tensor's shape": (
        lambda m, x: torch.ones_like(m.head(x)) - m.head(x) * torch.full_like(m.head(x), 2)
        + torch.zeros_like(m.head(x)), VECTOR, ["head linear"]),
    "of a map's shape": (lambda m, x: m.padded(x) + torch.full_like(m.padded(x), 3), MAP,
                         ["padded conv"]),
    "grouped": (lambda m, x: m.grouped((x - m.mean) * 3), MAP, ["grouped conv"]),
    "batch norm behind flattening": (
        lambda m, x: m.fc(m.norm(F.relu(m.same(x)).flatten(1))), MAP, ["same conv", "fc linear"]),
    "addmm": (lambda m, x: torch.addmm(m.three, x, m.matrix, beta=2, alpha=0.5), VECTOR,
              ["linear linear"]),
}


def network(forward) -> Net:
    torch.manual_seed(2)
    net = Net(forward, conv=CONV(), padded=PADDED(), same=nn.Conv2d(3, 3, 1),
              grouped=nn.Conv2d(3, 6, 3, groups=3), fc=nn.Linear(108, 5), head=nn.Linear(8, 3),
              norm=nn.BatchNorm1d(108), mean=MEAN, deviation=DEVIATION,
              picture=np.linspace(-1, 1, 108, dtype=np.float32),
              four=np.float32([[[1]], [[2]], [[-1]], [[0.5]]]),
              three=np.float32([1, -2, 0.25]), eight=np.linspace(0, 2, 8, dtype=np.float32),
              matrix=torch.randn(8, 3))
    nn.init.uniform_(net.norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(net.norm.running_var, 0.01, 2)
    return net


@pytest.mark.parametrize("name", FOLDED)
def test_constants_fold_into_the_layers_beside_them(name: str) -> None:
    forward, shape, wanted = FOLDED[name]
    graph, decibels = compiled(network(forward), shape)
    assert [entry.replace("addmm", "linear") for entry in kinds(graph)] == wanted
    assert decibels > 38, f"{decibels:.1f} dB"


KEPT = {        # a layer of its own, or the sum would be wrong at the borders
    "shifted in front of padding": (lambda m, x: m.padded(x - m.mean), MAP,
                                    ["sub conv", "padded conv"]),
    "scales far apart": (lambda m, x: m.conv(x * m.far), MAP, ["mul conv", "conv conv"]),
    "read twice": (lambda m, x: m.fork(x - m.mean), MAP, None),
    "difference": (lambda m, x: m.padded(x) - m.other(x), MAP, ["padded conv", "other conv"]),
    "difference of the input": (lambda m, x: x - m.same(x), MAP, ["same conv"]),
    "weighted sum": (lambda m, x: torch.add(m.same(x), F.relu(x), alpha=0.3), MAP, None),
}


@pytest.mark.parametrize("name", KEPT)
def test_constants_that_do_not_fold_are_layers_and_exact(name: str) -> None:
    forward, shape, wanted = KEPT[name]
    net = network(forward)
    net.add_module("other", PADDED())
    net.register_buffer("far", torch.tensor([[[1.0]], [[4.0]], [[0.5]]]))
    net.fork = lambda y: net.conv(y) + net.conv(F.relu(y))
    graph, decibels = compiled(net, shape)
    assert wanted is None or kinds(graph) == wanted
    assert decibels > 38, f"{decibels:.1f} dB"


def test_the_borders_of_a_shifted_picture_are_right() -> None:
    """A mean that is far from zero: folded into a padded convolution it would show."""
    net = network(lambda m, x: m.padded(x - 20))
    _, decibels = compiled(net, MAP)
    assert decibels > 45, f"{decibels:.1f} dB"


WEIGHTS = {
    "chunk": lambda m: sum(m.weight.chunk(2)),
    "unbind": lambda m: torch.stack(m.weight.unbind(0)[:4]),
    "topk": lambda m: (m.weight * (m.weight >= m.weight.flatten().topk(40)[0].min()))[:4],
    "norm": lambda m: F.normalize(m.weight.flatten(1)).view_as(m.weight)[:4],
    "svd": lambda m: torch.linalg.svd(m.weight.flatten(1), full_matrices=False)[2][:4].view(
        4, 1, 3, 3),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_computed_while_compiling(name: str) -> None:
    torch.manual_seed(4)
    net = Net(lambda m, x: m.head(F.relu(F.conv2d(x, WEIGHTS[name](m))).flatten(1)),
              head=nn.Linear(144, 3), weight=torch.randn(8, 1, 3, 3))
    graph, decibels = compiled(net, (1, 1, 8, 8))
    assert len(graph.nodes) == 2
    assert decibels > 35, f"{decibels:.1f} dB"


class State(nn.Module):
    """Counts its calls, and adds the count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return F.relu(x) + self.calls


REFUSED = {
    "random": (Net(lambda m, x: F.linear(x, m.weight + torch.randn(3, 8)),
                   weight=torch.ones(3, 8)), VECTOR, "it draws random numbers, others each time"),
    "state": (State(), VECTOR, r"calls \(buffer\): the forward pass changes it, and the next "),
    "by place": (network(lambda m, x: F.relu(x) - torch.arange(4107.0).view(3, 37, 37)),
                 (1, 3, 37, 37), r"it has numbers for each of 4,107 elements of a map of shape "),
    "widened": (network(lambda m, x: F.relu(x).mean((2, 3), True) * torch.arange(4107.0).view(
        3, 37, 37)), MAP, r"widens the shape \(1, 3, 1, 1\) to \(1, 3, 37, 37\), and of a layer "),
    "product": (network(lambda m, x: m.conv(x) * m.fc(x.flatten(1))[:, :4]), MAP,
                r"shapes \(1, 4, 4, 4\) and \(1, 4\) differ in their axes"),
    "quotient": (network(lambda m, x: 1 / x), VECTOR,
                 r"not finite everywhere.*x\.clamp\(0\.25, 8\)"),
    "quotient of two": (network(lambda m, x: m.head(x) / m.head(x)), VECTOR,
                        "it divides by a tensor of the network"),
    "zero": (network(lambda m, x: m.head(x) / torch.tensor([1.0, 0.0, 2.0])), VECTOR,
             "1 of its 3 divisors are 0"),
    "joined": (network(lambda m, x: torch.cat([x, torch.arange(4107.0).view(1, 3, 37, 37)], 1)),
               (1, 3, 37, 37), "it joins a constant of 4,107 elements to a tensor of the network, "
               "of 4,107, which takes a layer .* or give the network the constant as a second "
               "input"),
    "rounded": (network(lambda m, x: torch.div(m.head(x), 2, rounding_mode="floor")), VECTOR,
                r"it rounds \(floor\)"),
    "not finite": (network(lambda m, x: m.head(x) * float("inf")), VECTOR, "not finite"),
    "by place behind flattening": (
        network(lambda m, x: F.relu(F.relu(m.same(x)).flatten(1) * torch.arange(4107.0))),
        (1, 3, 37, 37), r"it has numbers for each of 4,107 elements of a map of shape "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_constants_that_are_refused(name: str) -> None:
    model, shape, words = REFUSED[name]
    with pytest.raises(CompileError, match=words) as caught:
        optimise(import_model(model, np.zeros(shape, np.float32)))
    assert "\n" not in str(caught.value)
    assert Path(__file__).name in (caught.value.source or "") or name == "state"


def test_a_normalised_input_is_one_batch_norm_a_step() -> None:
    graph = import_model(network(FOLDED["normalised"][0]), np.zeros(MAP, np.float32))
    first, second, _ = graph.nodes
    assert isinstance(first, BatchNorm) and isinstance(second, BatchNorm)
    assert np.allclose(first.shift, [-0.5, -0.4, -0.3]) and np.all(first.scale == 1)
    assert np.allclose(second.scale, [5, 4, 1 / 0.3]) and not np.any(second.shift)


def test_an_output_may_be_reshaped() -> None:
    net = nn.Sequential(nn.Linear(8, 12), nn.Unflatten(1, (1, 3, 4)))
    graph, decibels = compiled(net, VECTOR)
    assert graph.output_shape == (1, 3, 4)
    assert decibels > 38, f"{decibels:.1f} dB"
