"""Networks whose filters are pruned, with parameters as after training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

Conv, Depthwise = nn.Conv2d, lambda n, k=3, **more: nn.Conv2d(n, n, k, groups=n, **more)


class Net(nn.Module):
    """Layers by name, and a function that calls them."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the model in float64 and eval mode, with parameters and statistics as after training.

    None of them is zero, so that nothing stays zero by chance.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.3, generator=generator)
            tensor += 0.05 * (tensor == 0)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return model.double().eval()


def leaves(outputs: Any) -> list[torch.Tensor]:
    return [leaf.detach() for leaf in torch.utils._pytree.tree_leaves(outputs)]


def zeroed(model: nn.Module, gone: dict[str, np.ndarray], norms: dict[str, str]) -> nn.Module:
    """Return a copy with filters at zero, and gamma and beta of the normalisation behind."""
    twin = copy.deepcopy(model)
    for name, indices in gone.items():
        for owner in (name, norms.get(name)):
            for tensor in () if owner is None else twin.get_submodule(owner).parameters():
                tensor.data[indices] = 0
    return twin


def sequence(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def mobile(**bias: Any) -> nn.Module:
    return sequence(Conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), Depthwise(8, padding=1, **bias),
                    nn.BatchNorm2d(8), nn.ReLU6(), Conv(8, 6, 1, **bias), nn.BatchNorm2d(6),
                    nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
