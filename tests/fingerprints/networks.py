"""Twelve small networks whose weights come from a counter: the same numbers everywhere."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from celosia.models import LeNet5

HOW = "if that is meant: python -m pytest tests/fingerprints -n0 --update"
"""What is said where something is not as it was stored."""


class Net(NamedTuple):
    """A network, the shape of its input, and the share of its weights that stays."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    density: float


class Residual(nn.Module):
    """Two additions, one of them over a 1x1 convolution with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.short = nn.Conv2d(8, 12, 1, stride=2)
        self.last = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.second(x) + x)
        x = F.relu(self.third(x) + self.short(x))
        return self.last(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _sequence(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(layer() for layer in layers))


def _conv(*arguments: int, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(*arguments, **options)


def _linear(*arguments: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(*arguments)


def _pool(*arguments: int) -> Callable[[], nn.Module]:
    return lambda: nn.MaxPool2d(*arguments)


NETS = {
    "mlp": Net(_sequence(_linear(40, 24), nn.ReLU, _linear(24, 6)), (40,), 0.4),
    "dense mlp": Net(_sequence(_linear(17, 9), nn.ReLU, _linear(9, 3)), (17,), 1.0),
    "valid": Net(_sequence(_conv(3, 8, 3), nn.ReLU, nn.Flatten, _linear(288, 4)), (3, 8, 8), 0.3),
    "padded": Net(_sequence(_conv(2, 6, 3, padding=1), nn.ReLU, _conv(6, 9, 3, padding=1),
                            nn.ReLU, nn.Flatten, _linear(324, 7)), (2, 6, 6), 0.4),
    "strided": Net(_sequence(_conv(2, 8, 3, stride=2, padding=1), nn.ReLU,
                             _conv(8, 8, 3, stride=2, padding=1), nn.ReLU, nn.Flatten,
                             _linear(72, 5)), (2, 12, 12), 0.5),
    "pooled": Net(_sequence(_conv(1, 6, 5), nn.ReLU, _pool(2), _conv(6, 8, 3), nn.ReLU,
                            _pool(3, 2), nn.Flatten, _linear(8, 10)), (1, 16, 16), 0.3),
    "depthwise": Net(_sequence(_conv(4, 8, 1), nn.ReLU, _conv(8, 8, 3, padding=1, groups=8),
                               nn.ReLU, _conv(8, 6, 1), nn.Flatten, _linear(216, 4)),
                     (4, 6, 6), 1.0),
    "grouped": Net(_sequence(_conv(6, 8, 3, groups=2), nn.ReLU, _conv(8, 4, 3, groups=4),
                             nn.Flatten, _linear(64, 3)), (6, 8, 8), 0.7),
    "dilated": Net(_sequence(_conv(2, 5, 3, dilation=2), nn.ReLU, nn.Flatten, _linear(180, 4)),
                   (2, 10, 10), 0.5),
    "averaged": Net(_sequence(_conv(3, 10, 3), nn.ReLU,
                              lambda: nn.AvgPool2d(2), nn.Flatten, _linear(90, 4)),
                    (3, 8, 8), 0.6),
    "residual": Net(Residual, (3, 10, 10), 0.5),
    "lenet5": Net(LeNet5, (1, 28, 28), 0.1),
}


def network(name: str) -> nn.Module:
    """Return a network of `NETS` in eval mode. Weights are normal, with half their inputs' root
    as deviation; of each layer about ``density`` of them are not zero."""
    net = NETS[name]
    model = net.make().eval()
    rng = np.random.default_rng(list(name.encode()))
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 16
            values = rng.normal(size=parameter.shape) / np.sqrt(fan / 2)
            if parameter.ndim > 1:
                values *= rng.random(parameter.shape) < net.density
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def samples(name: str) -> np.ndarray:
    """Return calibration inputs, float32 (8, ...)."""
    return np.random.default_rng(7).normal(size=(8, *NETS[name].shape)).astype(np.float32)
