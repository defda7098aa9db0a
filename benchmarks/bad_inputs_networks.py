"""Small programs that use every part of a program file, to be damaged."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import celosia

__all__ = ["Base", "bases"]


@dataclass(frozen=True, eq=False)
class Base:
    """A program, and inputs for it: float32 (N, ...)."""

    name: str
    program: celosia.Program
    x: np.ndarray


class _Network(nn.Module):
    """Layers by name, and a function that calls them."""

    def __init__(self, forward: Callable, **layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.call = nn.ModuleDict(layers), forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(self.layers, x)


def _plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(36, 5))


def _strided() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.ReLU(),
                         nn.Conv2d(6, 6, 3, groups=6, padding=(1, 0), dilation=(1, 2)), nn.ReLU(),
                         nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))


def _added() -> nn.Module:
    def forward(layers: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(layers["first"](x))
        return torch.relu(layers["second"](x) + x + layers["third"](x))

    return _Network(forward, first=nn.Conv2d(2, 5, 3, padding=1),
                    second=nn.Conv2d(5, 5, 3, padding=1), third=nn.Conv2d(5, 5, 1))


def _selected() -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(3, 8, (1, 3)), nn.ReLU(),
                         nn.Conv2d(8, 2, 2, padding=(0, 1)))


def _vector() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(),
                         nn.Linear(24, 7))


def _ended() -> nn.Module:
    """The host computes its end; `_KNOWN` says how pixels become its inputs."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6),
                         nn.Hardsigmoid(), nn.Unflatten(1, (2, 3)), nn.Softmax(2), nn.Flatten(),
                         nn.LogSoftmax(1))


_KNOWN = {"ended": celosia.Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3),
                                         deviation=(0.2, 0.3, 0.4), labels=tuple("abcdef"))}

_NETWORKS = (
    ("plain", _plain, (1, 9, 9), "hx8k", "dynamic", 1.0),
    ("strided", _strided, (2, 10, 11), "hx8k", "static", 0.5),
    ("vector", _vector, (40,), "hx8k-b-evn", "static", 0.3),
    ("ended", _ended, (3, 5, 6), "hx8k", "dynamic", 1.0),
    ("added", _added, (2, 6, 7), "icebreaker", "dynamic", 0.6),
    ("selected", _selected, (3, 9, 10), "icebreaker", "static", 1.0),
)


def bases(seed: int) -> list[Base]:
    """Return the programs, from random weights of which some layers have few that are not zero."""
    return [_base(seed, *network) for network in _NETWORKS]


def _base(seed: int, name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], target: str,
          exponents: str, density: float) -> Base:
    torch.manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight *= torch.rand(weight.shape) < density
    x = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of torch.export's own code
        program = celosia.compile(model, x[:1], target=target, exponents=exponents,
                                  calibration=x if exponents == "static" else None,
                                  preprocessing=_KNOWN.get(name))
    return Base(name, program, x)

