"""Sums and means over channels, height and width."""

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia_spec.errors import CompileError


class Net(nn.Module):
    def __init__(self, function, channels: int, size: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        kind = nn.Conv2d if len(size) == 2 else nn.Conv1d
        self.first = kind(3, 4, 3, padding=1)
        self.last = nn.Identity() if not channels else (
            kind(channels, 3, 1) if channels > 0 else nn.Linear(-channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.function(torch.relu(self.first(x))))


KINDS = {
    "height and width": (lambda x: x.sum((2, 3)), -4), "kept": (lambda x: x.sum((-1, 2), True), 4),
    "width": (lambda x: x.sum(3, keepdim=True), 4), "lines at the end": (lambda x: x.sum(2), 0),
    "channels": (lambda x: x.sum(1, keepdim=True), 1),
    "mean of channels": (lambda x: x.mean(1, keepdim=True), 1),
    "mean of channels at the end": (lambda x: x.mean(1), 0),
    "mean of lines and channels": (lambda x: x.mean((1, 3), keepdim=True), 1),
    "all": (lambda x: x.mean((1, 2, 3), keepdim=True), 1),
    "of a vector": (lambda x: x.mean((2, 3)).sum(1, keepdim=True), -1),
    "weighed by its mean": (lambda x: x - x.mean(1, keepdim=True), 4),
}


def ratio(net: nn.Module, size: tuple[int, ...]) -> float:
    x = np.random.default_rng(0).standard_normal((6, 3, *size)).astype(np.float32)
    with torch.no_grad():
        wanted = net.eval()(torch.from_numpy(x)).numpy()
    found = celosia.run(celosia.compile(net, (1, 3, *size), target="ulx3s-25f"), x).answer
    assert found.shape == wanted.shape
    return 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())


@pytest.mark.parametrize("size", [(7, 9), (12, 3)])
@pytest.mark.parametrize("name", KINDS)
def test_outputs_are_those_of_torch(name: str, size: tuple[int, int]) -> None:
    assert ratio(Net(*KINDS[name], size), size) > 30


def test_lines() -> None:
    for function, channels in ((lambda x: x.sum(2), -4), (lambda x: x.sum(1, True), 1),
                               (lambda x: x.mean((1, 2), True), 1)):
        assert ratio(Net(function, channels, (30,)), (30,)) > 30


@pytest.mark.parametrize("function", [
    lambda x: x.sum((2, 3), dtype=torch.float64).float(), lambda x: x.sum((0, 2), keepdim=True),
    lambda x: x.sum()])
def test_refusals(function) -> None:
    with pytest.raises(CompileError, match=r"(sum|output|float)"):
        celosia.compile(Net(function, 0, (6, 6)).eval(), (1, 3, 6, 6))
