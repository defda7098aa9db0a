"""A network and a task for it, as low ranks are tried on."""

from __future__ import annotations

import torch
from torch import nn

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Net(nn.Module):
    """Two convolutions around a residual, of which one is called twice, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.alias = self.body[0]
        self.last = nn.Linear(16 * 64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.body(x) + self.alias(x))
        return self.last(x.flatten(1))


def task(count: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 3, 8, 8, generator=generator)
    return inputs, torch.randint(0, 5, (count,), generator=generator)
