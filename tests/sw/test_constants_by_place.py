"""Constants that differ from place to place of a map: position embeddings, masks, windows."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import celosia
from moved import compare, near

MAP = (1, 3, 8, 8)


class Net(nn.Module):
    """A function of constants, the input and layers."""

    def __init__(self, function: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)
        places = torch.randn(1, 8, 8, 8)
        self.register_buffer("places", places)
        self.register_buffer("mask", torch.arange(64).reshape(8, 8) % 3 > 0)
        self.register_buffer("channels", places[:, :, :1, :1].clone())
        self.register_buffer("rows", places[:, :1, :, :1].clone())
        self.register_buffer("tokens", places.flatten()[:72].reshape(1, 6, 12).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x, *self.layers)


def first(channels: int = 8) -> nn.Module:
    return nn.Conv2d(3, channels, 3, padding=1)


def last() -> nn.Module:
    return nn.Conv2d(8, 6, 3, padding=1)


def linear() -> nn.Module:
    return nn.Linear(512, 5)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "added": (lambda: Net(lambda m, x, a, b: b(a(x) + m.places), first(), last()), MAP),
    "added, with functions": (
        lambda: Net(lambda m, x, a, b: b(F.relu(F.relu(a(x)) + m.places)), first(), last()), MAP),
    "subtracted from": (lambda: Net(lambda m, x, a, b: b(m.places - a(x)), first(), last()), MAP),
    "divided": (lambda: Net(lambda m, x, a, b: b(a(x) / (m.places.abs() + 0.5)),
                               first(), last()), MAP),
    "masked": (lambda: Net(lambda m, x, a, b: b(a(x) * m.mask), first(), last()), MAP),
    "rows": (lambda: Net(lambda m, x, a, b: b(a(x) * m.rows), first(), last()), MAP),
    "of the input": (lambda: Net(lambda m, x, a: a((x + m.places[:, :3]) * m.mask), first()), MAP),
    "returned": (lambda: Net(lambda m, x, a: a(x) * m.places, first()), MAP),
    "read twice": (lambda: Net(lambda m, x, a, b: b(a(x) + F.relu(a(x) * m.mask)), first(), last()),
                   MAP),
    "flattened behind it": (
        lambda: Net(lambda m, x, a, b: b((a(x) * m.places).flatten(1)), first(), linear()), MAP),
    "behind flattening": (lambda: Net(
        lambda m, x, a, b: b(F.relu(F.relu(a(x)).flatten(1) + m.places.flatten())), first(),
        linear()), MAP),
    "behind a vector": (lambda: Net(
        lambda m, x, a, b: b(a(x).reshape(1, 8, 8, 8) + m.places), nn.Linear(10, 512), last()),
        (1, 10)),
    "enlarged": (lambda: Net(lambda m, x, a, b: b(F.interpolate(a(x), scale_factor=2) * m.places),
                             first(), last()), (1, 3, 4, 4)),
    "a line": (lambda: Net(lambda m, x, a: a(x) + m.places.flatten()[:96].reshape(1, 8, 12),
                           nn.Conv1d(3, 8, 3, padding=1)), (1, 3, 12)),
    "tokens": (lambda: Net(lambda m, x, a, b: b(F.relu(a(x) + m.tokens)), nn.Linear(10, 12),
                           nn.Linear(12, 5)), (1, 6, 10)),
    "one token": (lambda: Net(lambda m, x, a, b: b(F.relu(a(x) * m.tokens[:, :1] + 1)),
                              nn.Linear(10, 12), nn.Linear(12, 5)), (1, 1, 10)),
    "patches": (lambda: Net(
        lambda m, x, a, b: b(a(x).flatten(2).transpose(1, 2) + m.tokens[:, :4]).mean(1),
        nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 5)), MAP),
    "more channels": (lambda: Net(lambda m, x, a, b: b(a(x) * m.channels), first(1), last()), MAP),
    "more channels, places": (lambda: Net(lambda m, x, a, b: b(a(x) + m.places), first(1), last()),
                              MAP),
    "more places": (lambda: Net(
        lambda m, x, a, b: b(F.relu(a(x).mean((2, 3), True)) + m.places), first(), last()), MAP),
    "chosen": (lambda: Net(lambda m, x, a, b: b(torch.where(m.mask, a(x), 0.5)), first(), last()),
               MAP),
    "filled": (lambda: Net(lambda m, x, a, b: b(a(x).masked_fill(m.mask, 2)), first(), last()),
               MAP),
    "chosen of two": (lambda: Net(
        lambda m, x, a, b, c: c(torch.where(m.mask, a(x), F.relu(b(x)))), first(), first(), last()),
        MAP),
    "joined": (lambda: Net(lambda m, x, a: a(torch.cat([x, m.places[:, :2]], 1)),
                           nn.Conv2d(5, 8, 3, padding=1)), MAP),
    "joined, behind a layer": (lambda: Net(
        lambda m, x, a, b: b(torch.cat([m.places[:, :2], F.relu(a(x)), m.places[:, 2:4]], 1)),
        first(), nn.Conv2d(12, 8, 3)), MAP),
    "joined to a vector": (lambda: Net(
        lambda m, x, a: a(torch.cat([x[:, :5], m.tokens[:, 0, :3]], 1)), nn.Linear(8, 4)),
        (1, 8)),
    "stacked": (lambda: Net(
        lambda m, x, a: a(torch.stack([x[:, :4], m.tokens[:, 0, :4]], 2).flatten(1)),
        nn.Linear(8, 4)), (1, 8)),
    "a channel of ones": (lambda: Net(
        lambda m, x, a: a(torch.cat([x, torch.ones(1, 1, 80, 80)], 1)), nn.Conv2d(4, 4, 3)),
        (1, 3, 80, 80)),
    "a token": (lambda: Net(
        lambda m, x, a, b: b((torch.cat([m.tokens[:, :1], a(x).flatten(2).transpose(1, 2)], 1)
                              + m.tokens[:, 1:]).flatten(1)),
        nn.Conv2d(3, 12, 4, 4), nn.Linear(60, 5)), MAP),
    "padded by joining": (lambda: Net(
        lambda m, x, a, b: b(torch.cat([m.places[:, :, :, :1], a(x)], 3)), first(), last()), MAP),
    "a triangle": (lambda: Net(lambda m, x, a, b: b(torch.tril(a(x))), first(), last()), MAP),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_computes_what_the_network_computes(name: str) -> None:
    torch.manual_seed(0)
    network, shape = NETWORKS[name]
    compare(network(), shape)


@pytest.mark.parametrize("name", ["added, with functions", "of the input", "tokens",
                                  "more places", "chosen of two", "joined, behind a layer",
                                  "a token"])
def test_what_is_compiled_is_near_to_the_network(name: str) -> None:
    torch.manual_seed(0)
    network, shape = NETWORKS[name]
    near(network(), shape)


@pytest.mark.parametrize(("name", "layers"), [
    ("added", 3), ("flattened behind it", 2), ("one token", 2), ("behind a vector", 2),
    ("more channels", 3)])
def test_a_constant_takes_no_layer_where_another_can_have_it(name: str, layers: int) -> None:
    torch.manual_seed(0)
    network, shape = NETWORKS[name]
    graph = compare(network(), shape)
    assert len(graph.nodes) == layers


def test_what_is_too_large_is_a_second_input() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 8, 3, padding=1)
            self.places = nn.Parameter(torch.randn(1, 8, 24, 24))

        def forward(self, x: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
            return self.layer(x) + (self.places if places is None else places)

    torch.manual_seed(0)
    network = Large()
    with pytest.raises(celosia.CompileError, match="4,608 elements.* as a second input"):
        celosia.compile(network, (1, 3, 24, 24), target="ulx3s-25f")
    program = celosia.compile(network, ((1, 3, 24, 24), (1, 8, 24, 24)), target="ulx3s-25f")
    x = np.random.default_rng(1).standard_normal((2, 3, 24, 24)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    places = np.repeat(network.places.detach().numpy(), 2, 0)
    answer = celosia.run(program, (x, places)).answer
    assert 10 * np.log10(np.square(wanted).sum() / np.square(answer - wanted).sum()) > 25
