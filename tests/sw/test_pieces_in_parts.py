"""Functions and products in pieces whose pieces do not fit into the banks: parts of channels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import celosia
from celosia.frontend import import_model
from celosia.passes.phases import phases, rows
from moved import near

SHAPE = (1, 3, 8, 8)


def first(channels: int) -> nn.Module:
    return nn.Conv2d(3, channels, 3, padding=1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": lambda: nn.Sequential(first(64), nn.Sigmoid(), nn.Conv2d(64, 4, 1)),
    "silu": lambda: nn.Sequential(first(64), nn.SiLU(), nn.Conv2d(64, 4, 1)),
    "silu, returned": lambda: nn.Sequential(first(48), nn.SiLU()),
    "elu, by channel": lambda: nn.Sequential(first(64), nn.ELU(), nn.Conv2d(64, 64, 3, groups=64),
                                             nn.Conv2d(64, 4, 1)),
    "gelu, pooled": lambda: nn.Sequential(first(64), nn.GELU(), nn.MaxPool2d(2),
                                          nn.Conv2d(64, 4, 1)),
    "silu, enlarged": lambda: nn.Sequential(first(24), nn.Upsample(scale_factor=2), nn.SiLU(),
                                            nn.Conv2d(24, 4, 1)),
    "tanh, transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 24, 2, 2), nn.Tanh(),
                                              nn.Conv2d(24, 4, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_function_of_many_channels_is_near_to_the_network(name: str) -> None:
    torch.manual_seed(0)
    near(NETWORKS[name](), SHAPE)


@pytest.mark.parametrize(("channels", "size", "target"), [
    (128, 8, "icebreaker"),     # an even cut into as many parts as rows have room for
    (64, 16, "ulx3s-85f"), (32, 24, "ulx3s-85f"), (24, 24, "icebreaker")])
def test_pieces_leave_room_in_main_memory(channels: int, size: int, target: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, channels, 1), nn.SiLU(), nn.Conv2d(channels, 4, 1)).eval()
    x = np.random.default_rng(1).standard_normal((1, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    answer = celosia.run(celosia.compile(network, x, target=target), x).answer
    assert 10 * np.log10(np.square(wanted).sum() / np.square(answer - wanted).sum()) > 27


class Gated(nn.Module):
    """A skip that a gate from below chooses of, as attention U-Nets have it."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.skip, self.below, self.last = first(8), nn.Conv2d(3, 1, 2, 2), nn.Conv2d(8, 4, 1)
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = F.interpolate(torch.sigmoid(self.below(x)), scale_factor=2, mode=self.mode)
        return self.last(self.skip(x) * gate)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_product_with_an_enlarged_map_is_near_to_the_network(mode: str) -> None:
    torch.manual_seed(0)
    network, shape = Gated(mode).eval(), (3, 16, 16)
    x = np.random.default_rng(1).standard_normal((4, *shape)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    program = celosia.compile(network, (1, *shape), target="ulx3s-85f", calibration=x)
    answer = celosia.run(program, x).answer
    assert 10 * np.log10(np.square(wanted).sum() / np.square(answer - wanted).sum()) > 28


def test_phases_are_told_before_they_are_made() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.up = first(4), nn.ConvTranspose1d(4, 4, 4, 4)
            self.down = nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = self.first(x)
            wide = F.interpolate(x, scale_factor=(2, 3)).relu()
            return (self.down(wide), F.pixel_shuffle(x, 2) + 1.0, self.up(x.mean(2)),
                    F.max_pool2d(wide, 2), x[:, :, ::2])

    graph = import_model(Net().eval(), SHAPE)
    found, shapes = phases(graph), graph.shapes
    kept = {(shapes[name], of) for name, of in found.items()}
    assert kept >= {((4, 16, 24), (2, 3)), ((4, 8, 24), (1, 3)), ((1, 16, 16), (2, 2)),
                    ((4, 1, 32), (1, 4)), ((4, 8, 12), (1, 1)), ((4, 8, 8), (1, 1))}
    assert rows((16, 24), (2, 3)) == 6 and rows((16, 24), (1, 1)) == 2
