"""Operators in forms that people write: one axis taken away, other roundings, other constants."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from moved import compare, near


class Behind(nn.Module):
    """A function behind a convolution of (1, 3, 8, 8) to 8 channels; it may use some layers."""

    def __init__(self, function: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.layers = nn.Conv2d(3, 8, 3, padding=1), nn.ModuleList(layers)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.first(x), *self.layers)


FORMS: dict[str, Callable[[], nn.Module]] = {
    "mean of columns": lambda: Behind(lambda x: x.mean(3)),
    "mean of columns, then a line": lambda: Behind(lambda x, a: a(x.mean(3)), nn.Conv1d(8, 4, 3)),
    "mean of columns, then of lines": lambda: Behind(
        lambda x, a: a(x.mean(3).mean(2)), nn.Linear(8, 5)),
    "maximum of columns, then a line": lambda: Behind(
        lambda x, a: a(x.amax(3)), nn.Conv1d(8, 4, 3)),
    "maximum with its indices": lambda: Behind(
        lambda x, a: a(x.max(3)[0]), nn.Conv1d(8, 4, 3)),
    "minimum": lambda: Behind(lambda x, a: a(x.amin((2, 3))), nn.Linear(8, 5)),
    "minimum with its indices": lambda: Behind(
        lambda x, a: a(x.min(3)[0]), nn.Conv1d(8, 4, 3)),
    "minimum of channels": lambda: Behind(lambda x: x.amin(1, keepdim=True)),
    "minimum of tokens": lambda: Behind(
        lambda x, a, b: b(a(x.flatten(2).transpose(1, 2)).amin(1)), nn.Linear(8, 6),
        nn.Linear(6, 5)),
    "padded with a number": lambda: Behind(
        lambda x, a: a(F.pad(x, (1, 0, 2, 1), value=0.75)), nn.Conv2d(8, 4, 3)),
    "padded with a number behind a ReLU": lambda: Behind(
        lambda x, a: a(F.pad(F.relu(x), (1, 1), value=-0.5)), nn.Conv2d(8, 4, 3)),
    "padded with a number, returned": lambda: Behind(lambda x: F.pad(x, (1, 1, 0, 1), value=2)),
    "nearest-exact, twice": lambda: Behind(
        lambda x, a: a(F.interpolate(x, scale_factor=2, mode="nearest-exact")),
        nn.Conv2d(8, 4, 3, padding=1)),
    "nearest-exact, half": lambda: Behind(
        lambda x, a: a(F.interpolate(x, scale_factor=0.5, mode="nearest-exact")),
        nn.Conv2d(8, 4, 3)),
    "nearest-exact, any size": lambda: Behind(
        lambda x: F.interpolate(x, size=(12, 20), mode="nearest-exact")),
    "nearest-exact, a line": lambda: Behind(
        lambda x, a: a(F.interpolate(x.mean(2), scale_factor=1.5, mode="nearest-exact")),
        nn.Conv1d(8, 4, 3, padding=1)),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_graph_computes_what_the_network_computes(name: str) -> None:
    compare(FORMS[name](), (1, 3, 8, 8))


@pytest.mark.parametrize("name", ["mean of columns, then a line", "minimum with its indices",
                                  "padded with a number behind a ReLU",
                                  "nearest-exact, any size"])
def test_what_is_compiled_is_near_to_the_network(name: str) -> None:
    near(FORMS[name](), (1, 3, 8, 8))
