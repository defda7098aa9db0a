"""A small network and a task for it, as pruning is tried on."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))


def small_task() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(40, 1, 6, 6, generator=generator)
    return inputs, torch.randint(0, 5, (40,), generator=generator)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: layer.weight.detach().numpy().copy()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
