"""Products of maps that were enlarged or moved, beside the float network: the same pieces."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import celosia
from celosia.compiler import Compiler
from celosia.noise import against_float
from celosia.products import products, scales_in

MAP = (3, 8, 8)


class Net(nn.Module):
    """A function of layers and the input."""

    def __init__(self, function: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.layers)


def first(channels: int = 4) -> nn.Module:
    return nn.Conv2d(3, channels, 3, padding=1)


def last() -> nn.Module:
    return nn.Conv2d(4, 5, 3, padding=1)


def twice(x: torch.Tensor, mode: str = "nearest") -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode=mode)


def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


def gated(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x.mean((2, 3), True))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "enlarged": lambda: Net(lambda x, a, b, c: c(twice(a(x)) * twice(b(x))), first(), first(),
                            last()),
    "enlarged, smoothly": lambda: Net(
        lambda x, a, b, c: c(twice(a(x), "bilinear") * twice(b(x))), first(), first(), last()),
    "square of an enlarged one": lambda: Net(lambda x, a, c: c(twice(a(x)) ** 2), first(), last()),
    "transposed": lambda: Net(lambda x, a, t, u, c: c(t(a(x)) * torch.sigmoid(u(a(x)))), first(),
                              nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2),
                              last()),
    "transposed, gated": lambda: Net(lambda x, a, t, c: c(gated(t(a(x)))), first(),
                                     nn.ConvTranspose2d(4, 4, 2, 2), last()),
    "shuffled, returned": lambda: Net(lambda x, a: square(F.pixel_shuffle(a(x), 2)), first(8)),
    "the same twice": lambda: Net(
        lambda x, a, b, c: c(torch.cat([a(x), a(x)], 1) * torch.cat([b(x), b(x)], 1)), first(2),
        first(2), last()),
    "every second line": lambda: Net(
        lambda x, a, b, c: c(a(x)[:, :, ::2] * b(x)[:, :, 1::2]), first(), first(), last()),
    "turned over": lambda: Net(lambda x, a, b, c: c(a(x).flip(3) * b(x)), first(), first(),
                               last()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_product_of_moved_maps_is_beside_float_what_it_is_in_the_program(name: str) -> None:
    torch.manual_seed(1)
    model = NETWORKS[name]().eval()
    x = np.random.default_rng(3).standard_normal((9, *MAP)).astype(np.float32)
    imported = Compiler(target="ulx3s-25f").imported(model, (1, *MAP))
    found = {node: product.scale for node, product in products(imported, x).items()}
    program = celosia.compile(model, (1, *MAP), calibration=x, target="ulx3s-25f")
    assert scales_in(imported, program.graph) == found
    assert against_float(program, model, x).output_ratio > 25
