"""Weights that look untrained: every network fresh from torch, and none that was trained."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional, init  # noqa: E402

from celosia.compress.untrained import looks_untrained  # noqa: E402
from celosia.models import DnCNN, LeNet5, ResNet, load_lenet5  # noqa: E402


def drawn(draw, biases=init.zeros_) -> nn.Module:
    """A small network whose weights ``draw`` sets."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(200, 32), nn.ReLU(), nn.Linear(32, 2))
    for layer in (model[0], model[4], model[6]):
        draw(layer.weight)
        biases(layer.bias)
    return model


def keep(_: torch.Tensor) -> None:
    """Leave a parameter as torch makes it."""


DRAWS = {
    "kaiming normal": lambda weight: init.kaiming_normal_(weight, mode="fan_out"),
    "kaiming uniform": init.kaiming_uniform_, "xavier normal": init.xavier_normal_,
    "xavier uniform": init.xavier_uniform_, "orthogonal": init.orthogonal_,
    "normal": lambda weight: init.normal_(weight, std=0.01),
    "truncated normal": lambda weight: init.trunc_normal_(weight, std=0.02),
}
FRESH = {
    "torch's own": lambda: drawn(keep, keep), "LeNet-5": LeNet5, "ResNet": lambda: ResNet(20),
    "DnCNN": DnCNN, "one layer": lambda: nn.Linear(16, 8), "no biases": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)),
    "groups": lambda: nn.Conv2d(16, 32, 3, groups=4),
} | {name: lambda draw=draw: drawn(draw) for name, draw in DRAWS.items()}


@pytest.mark.parametrize("name", FRESH)
def test_fresh_networks_look_untrained(name: str) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        assert looks_untrained(FRESH[name]()), seed


@pytest.mark.parametrize("pruned", [False, True])
def test_trained_networks_do_not(pruned: bool) -> None:
    assert not looks_untrained(load_lenet5(pruned=pruned))


@pytest.mark.parametrize("name", ["torch's own", *DRAWS])
def test_a_little_training_shows(name: str) -> None:
    """200 steps of which each moves a weight by at most a thousandth."""
    torch.manual_seed(1)
    model = FRESH[name]()
    x = torch.randn(1000, 1, 12, 12)
    labels = (x[:, :, :6].mean((1, 2, 3)) > x[:, :, 6:].mean((1, 2, 3))).long()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for part in itertools.islice(itertools.cycle(torch.arange(1000).split(50)), 200):
        optimiser.zero_grad()
        functional.cross_entropy(model(x[part]), labels[part]).backward()
        optimiser.step()
    assert not looks_untrained(model)


def test_a_normalisation_that_has_seen_a_batch_is_enough() -> None:
    model = ResNet(8)
    assert looks_untrained(model)
    model.train()(torch.randn(4, 3, 16, 16))
    assert not looks_untrained(model)


def test_networks_that_nothing_can_be_said_of() -> None:
    assert not looks_untrained(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert not looks_untrained(nn.ReLU())
    zeros = nn.Linear(16, 16)
    init.zeros_(zeros.weight)
    assert not looks_untrained(zeros)
    pruned = nn.Linear(64, 16)
    with torch.no_grad():
        pruned.weight[torch.rand(16, 64, generator=torch.Generator().manual_seed(0)) < 0.5] = 0
    assert not looks_untrained(pruned)


def test_large_layers_are_looked_at_in_part() -> None:
    """A layer of so many weights that one of them is exactly 0."""
    torch.manual_seed(0)
    layer = nn.Linear(2048, 1024)
    assert looks_untrained(layer)
    with torch.no_grad():
        layer.weight += torch.from_numpy(
            np.random.default_rng(0).laplace(scale=0.005, size=(1024, 2048)).astype(np.float32))
    assert not looks_untrained(layer)
