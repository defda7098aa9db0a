"""Vectors that become maps: decoders, and whatever else reads them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import celosia
from celosia import compress
from celosia.compiler import Compiler
from celosia.noise import against_float
from celosia_spec.errors import CompileError


class Net(nn.Module):
    """What a function makes of a module's layers and the input."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, **self.layers)


def normalised(channels: int, kind=nn.BatchNorm2d) -> nn.Module:
    found = kind(channels)
    found.running_mean.normal_()
    found.running_var.uniform_(0.5, 2)
    found.weight.data.uniform_(0.5, 2)
    return found


def linear(rows: int = 4 * 3 * 5) -> nn.Linear:
    return nn.Linear(12, rows)


def conv(channels: int = 4) -> nn.Conv2d:
    return nn.Conv2d(channels, 3, 3, padding=1)


def as_map(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 4, 3, 5)


NETWORKS = {
    "decoder": lambda: Net(
        lambda x, a, b, c: c(F.relu(b(as_map(F.relu(a(x)))))), a=linear(),
        b=nn.ConvTranspose2d(4, 4, 4, 2, 1), c=conv()),
    "generator": lambda: nn.Sequential(
        linear(3 * 7 * 7), nn.Unflatten(1, (3, 7, 7)), normalised(3), nn.ReLU(),
        nn.ConvTranspose2d(3, 4, 4, 2, 1), normalised(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 4, 2, 1)),
    "normalised vector": lambda: nn.Sequential(
        linear(), normalised(60, nn.BatchNorm1d), nn.LeakyReLU(0.1), nn.Unflatten(1, (4, 3, 5)),
        conv()),
    "leaky, sigmoid": lambda: Net(lambda x, a, b: b(torch.sigmoid(F.leaky_relu(
        as_map(a(x)), 0.2))), a=linear(), b=conv()),
    "two readers": lambda: Net(lambda x, a, b, c: torch.cat([
        b(as_map(y := F.relu(a(x)))).mean((2, 3)), c(y)], 1), a=linear(), b=conv(),
        c=nn.Linear(60, 3)),
    "read as a map twice": lambda: Net(lambda x, a, b, c: b(y := as_map(F.relu(a(x)))) + c(y),
                                       a=linear(), b=conv(), c=conv()),
    "a sum of two": lambda: Net(lambda x, a, b, c: c(F.relu(as_map(a(x)) + as_map(b(x)))),
                                a=linear(), b=linear(), c=conv()),
    "a sum with a map": lambda: Net(
        lambda x, a, b, c: c(F.relu(b(as_map(a(x)))) + 0.5 * as_map(a(x))), a=linear(),
        b=nn.Conv2d(4, 4, 1), c=conv()),
    "joined with a map": lambda: Net(
        lambda x, a, b, c: c(torch.cat([y := as_map(a(x)), F.relu(b(y))], 1)), a=linear(),
        b=nn.Conv2d(4, 2, 1), c=conv(6)),
    "pooled": lambda: Net(lambda x, a, b: b(F.max_pool2d(as_map(F.relu(a(x))), 2, 1)), a=linear(),
                          b=conv()),
    "averaged": lambda: Net(lambda x, a, b: b(F.avg_pool2d(as_map(a(x)), 2, 1)), a=linear(),
                            b=conv()),
    "enlarged": lambda: Net(lambda x, a, b: b(F.interpolate(as_map(F.relu(a(x))), scale_factor=2)),
                            a=linear(), b=conv()),
    "padded, cut": lambda: Net(lambda x, a, b: b(F.pad(as_map(a(x)), (1, 1, 2, 0))[:, 1:]),
                               a=linear(), b=conv(3)),
    "flattened again": lambda: Net(lambda x, a, b, c: c(F.relu(b(as_map(a(x)))).flatten(1)),
                                   a=linear(), b=conv(), c=nn.Linear(45, 5)),
    "one line": lambda: Net(lambda x, a, b: b(F.relu(a(x)).view(-1, 6, 10)), a=linear(),
                            b=nn.Conv1d(6, 3, 3, padding=1)),
    "an input": lambda: Net(lambda x, a, b: torch.cat([a(x.view(-1, 3, 2, 2)).flatten(1), b(x)], 1),
                            a=nn.Conv2d(3, 2, 2), b=nn.Linear(12, 2)),
    "another map": lambda: Net(lambda x, a, b: b(as_map(a(x)).view(-1, 5, 4, 3)), a=linear(),
                               b=conv(5)),
    "of parts": lambda: Net(lambda x, a, b, c: c(as_map(torch.cat([F.relu(a(x)), b(x)[:, 3:]], 1))),
                            a=linear(20), b=linear(43), c=conv()),
    "spread over a map": lambda: Net(lambda x, a, b, c: c(torch.cat([
        as_map(a(x)), b(x)[:, :, None, None].expand(-1, -1, 3, 5)], 1)), a=linear(),
        b=nn.Linear(12, 2), c=conv(6)),
    "clamped": lambda: Net(lambda x, a, b: b(F.relu6(as_map(a(x)))), a=linear(), b=conv()),
    "squared": lambda: Net(lambda x, a, b: b(as_map(y := a(x)) * as_map(y)), a=linear(), b=conv()),
    "autoencoder": lambda: Net(
        lambda x, e, a, b: b(as_map(F.relu(a(F.relu(e(x)))))), e=nn.Linear(12, 5),
        a=nn.Linear(5, 60), b=conv()),
}


@pytest.fixture(params=NETWORKS)
def network(request) -> nn.Module:
    torch.manual_seed(1)
    return NETWORKS[request.param]().eval()


X = np.random.default_rng(2).standard_normal((12, 12)).astype(np.float32)


def ratio(found: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())


@pytest.mark.parametrize("options", [
    {}, {"exponents": "static", "accuracy": "none"}, {"accuracy": "best"}])
def test_outputs_are_those_of_torch(network: nn.Module, options: dict) -> None:
    with torch.no_grad():
        wanted = network(torch.from_numpy(X)).numpy()
    program = celosia.compile(network, (1, 12), target="ulx3s-25f",
                              calibration=X if options else None, **options)
    assert ratio(celosia.run(program, X).answer, wanted) > 30
    assert against_float(program, network, X[:2]).others == ()


def test_no_layer_copies_what_one_can_write(tmp_path) -> None:
    torch.manual_seed(1)
    for name in ("decoder", "generator", "autoencoder", "read as a map twice"):
        graph = Compiler().graph(NETWORKS[name]().eval(), (1, 12))
        assert sum(node.map is not None for node in graph.nodes) == 1
        assert sum(len(node.weight) >= 60 for node in graph.nodes) == 1, name
    program = celosia.compile(NETWORKS["generator"]().eval(), (1, 12), target="ulx3s-25f")
    program.save(tmp_path / "net.celo")
    loaded = celosia.load(tmp_path / "net.celo")
    assert np.array_equal(celosia.run(loaded, X).values, celosia.run(program, X).values)


@pytest.mark.parametrize("name", ["decoder", "generator", "read as a map twice"])
def test_training_in_the_format(name: str) -> None:
    torch.manual_seed(1)
    made = compress.in_format(NETWORKS[name]().eval(), (1, 12), target="ulx3s-25f")
    found = made(torch.from_numpy(X))
    assert np.array_equal(found.detach(), celosia.run(made.program(), X).answer)
    found.sum().backward()
    assert all(weight.grad.any() for weight in made.weights.values())


def test_a_wide_input() -> None:
    torch.manual_seed(1)
    network = NETWORKS["decoder"]().eval()
    program = celosia.compile(network, (1, 12), target="ulx3s-25f", input_bits=15)
    with torch.no_grad():
        wanted = network(torch.from_numpy(X)).numpy()
    assert ratio(celosia.run(program, X).answer, wanted) > 35


def test_what_is_refused() -> None:
    net = Net(lambda x, a, b: b(a(x).view(-1, 2, x.shape[2], 72)), a=conv(1),
              b=nn.Conv2d(2, 1, 1))
    with pytest.raises(CompileError, match="make maps of vectors only"):
        celosia.compile(net.eval(), (1, 1, 40, 48))
    celosia.compile(net.eval(), (1, 1, 8, 48))
