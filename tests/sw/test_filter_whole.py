"""Which layers keep all filters, and what is said of them, by the kinds of operators."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from celosia.compress.filters.mask_layer import add_masks
from celosia.compress.filters.prune import prune_filters
from celosia_spec.errors import ArgumentError
from filter_networks import Conv, Depthwise, Net, leaves, lively, sequence, zeroed


class Standardised(nn.Conv2d):
    """Standardises its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


class Adapted(nn.Conv2d):
    """Adds a product of two small matrices to its weight."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.down, self.up = nn.Linear(self.weight[0].numel(), 2), nn.Linear(2, len(self.weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        more = self.up.weight @ self.down.weight
        return F.conv2d(x, self.weight + more.view_as(self.weight), self.bias)


def between(*layers: nn.Module, width: int = 8) -> Callable[[], nn.Module]:
    """Return what makes a network with layers between two convolutions."""
    return lambda: sequence(Conv(3, 8, 3), *copy.deepcopy(layers), Conv(width, 4, 3))


def function(run: Callable[[torch.Tensor], torch.Tensor], width: int = 8,
             **more: Any) -> Callable[[], nn.Module]:
    """Return what makes a network with a function between two convolutions."""
    return lambda: Net(lambda net, x: net.b(run(net.a(x))), a=Conv(3, 8, 3),
                       b=Conv(width, 4, 3, **more))


def through_a_view(x: torch.Tensor) -> torch.Tensor:
    part = x[:, :4]
    part += 1
    return x


def by_numbers(x: torch.Tensor) -> torch.Tensor:
    return x if x.max().item() > 100 else 2 * x


def twice() -> nn.Module:
    return Net(lambda net, x: net.b(net.a(net.a(F.relu(x)))), a=Conv(3, 3, 3), b=Conv(3, 4, 3))


def shared() -> nn.Module:
    net = Net(lambda net, x: net.c(torch.cat([net.a(x), net.b(2 * x)], 1)), a=Conv(3, 4, 3),
              b=Conv(3, 4, 3), c=Conv(8, 4, 3))
    net.b.weight = net.a.weight
    return net


def scaled(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.b(net.a(x) * net.scale)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sequence(Conv(3, 8, 3), torch.jit.script(nn.ReLU()), Conv(8, 4, 3))


SCALE = nn.Parameter(torch.rand(8, 1, 1) + 1)
WHOLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    # Channels that are moved or mixed
    "channel shuffle": (between(nn.ChannelShuffle(2)), "channel_shuffle in '1' .ChannelShuffle."),
    "pixel shuffle": (between(nn.PixelShuffle(2), width=2), "pixel_shuffle"),
    "pixel unshuffle": (between(nn.ZeroPad2d((0, 1, 0, 0)), nn.PixelUnshuffle(2), width=32),
                        "pixel_unshuffle"),
    "group norm": (between(nn.GroupNorm(2, 8)), "group_norm in '1' .GroupNorm."),
    "functional group norm": (function(lambda x: F.group_norm(x, 4)), "group_norm"),
    "layer norm": (function(lambda x: F.layer_norm(x, x.shape[1:])), "layer_norm"),
    "local response norm": (between(nn.LocalResponseNorm(3)), "local_response_norm"),
    "flip": (function(lambda x: x.flip(1)), "flip"),
    "roll": (function(lambda x: x.roll(1, 1)), "roll"),
    "cumulative sum": (function(lambda x: x.cumsum(1)), "cumsum"),
    "softmax": (between(nn.Softmax2d()), "softmax"),
    "norm over channels": (function(lambda x: F.normalize(x, dim=1)), "normalize"),
    "mean over channels": (function(lambda x: x - x.mean(1, keepdim=True)), "mean .*mixes"),
    "largest of all": (function(lambda x: x / x.amax()), "amax .*mixes"),
    "where the largest stands": (function(lambda x: x * x.max(3, keepdim=True)[1]), "max"),
    "halves": (function(lambda x: torch.cat([a := x.chunk(2, 1)[0], 2 * a], 1)), "chunk"),
    "a slice": (function(lambda x: x[:, 1:], width=7), "getitem"),
    "indices": (function(lambda x: x[:, torch.arange(8).flip(0)]), "getitem"),
    "groups of channels": (function(lambda x: x.view(len(x), 2, 4, *x.shape[2:]).transpose(
        1, 2).reshape(x.shape)), "view"),
    "gated by its half": (between(nn.GLU(1), width=4), "glu"),
    "matrix product": (function(lambda x: torch.einsum("nchw,cd->ndhw", x, torch.ones(8, 8).to(x))),
                       "einsum"),
    "attention": (lambda: Net(
        lambda net, x: net.b(net.a(x).flatten(2).transpose(1, 2)), a=Conv(3, 8, 3),
        b=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), "multi_head_attention"),
    "recurrence": (lambda: Net(
        lambda net, x: net.b(net.a(x).flatten(2).transpose(1, 2))[0], a=Conv(3, 8, 3),
        b=nn.LSTM(8, 4, batch_first=True)), "lstm"),
    "rows of a linear layer": (function(lambda x: F.linear(x, torch.ones(5, 7).to(x))),
                               "linear in the network's own forward"),
    "linear across": (lambda: Net(lambda net, x: net.b(net.a(x)), a=Conv(3, 8, 3),
                                  b=nn.Linear(7, 4)), "across its channels"),
    # Changes out of sight
    "in place, through a view": (function(through_a_view), "taken apart|through another view"),
    "plain data": (function(lambda x: x.data), "data"),
    "a branch on its numbers": (function(by_numbers), "max"),
    "by way of numpy": (function(lambda x: torch.from_numpy(x.numpy() * 2)), "numpy"),
    "a script": (scripted, "nothing that can be followed"),
    # Tensors of as many channels
    "scaled": (lambda: Net(scaled, a=Conv(3, 8, 3), b=Conv(8, 4, 3), scale=SCALE),
               "parameter 'scale' of as many channels"),
    "added to the input": (lambda: Net(lambda net, x: net.b(net.a(x) + x[:, :, 1:-1, 1:-1]),
                                       a=Conv(3, 3, 3), b=Conv(3, 4, 3)), "as many channels"),
    "padded": (function(lambda x: F.pad(x, (0, 0, 0, 0, 2, 2)), width=12), "padded"),
    # Readers that cannot be cut
    "grouped": (between(Conv(8, 8, 3, groups=2)), "grouped convolution '1'"),
    "depthwise with a multiplier": (between(Conv(8, 16, 3, groups=8), width=16), "grouped"),
    "called twice": (twice, "called 2 times"),
    "one weight in two layers": (shared, "shares its weight with"),
    "a reader called twice": (lambda: Net(
        lambda net, x: net.b(y := net.a(x)) + net.b(2 * y), a=Conv(3, 8, 3), b=Conv(8, 4, 3)),
        "'b' .Conv2d., which is called 2 times"),
    "a weight that is read elsewhere": (lambda: Net(
        lambda net, x: net.b(net.a(x)) * net.a.weight.mean(), a=Conv(3, 8, 3), b=Conv(8, 4, 3)),
        "weight used elsewhere"),
    "a standardised weight": (lambda: sequence(Standardised(3, 8, 3), Conv(8, 4, 3)),
                              "forward of its own"),
    "a reader that standardises": (lambda: sequence(Conv(3, 8, 3), Standardised(8, 4, 3)),
                                   "'1' .Standardised., which has weights that are no layer's"),
    "an adapted weight": (lambda: sequence(Conv(3, 8, 3), Adapted(8, 4, 3)), "'1' .Adapted."),
    "a computed batch normalisation": (lambda: sequence(
        Conv(3, 8, 3), nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        Conv(8, 4, 3)), "instance_norm"),
    # A zero that becomes a number, and a border that shows it
    "sigmoid and a border": (lambda: sequence(Conv(3, 8, 3), nn.Sigmoid(),
                                              Conv(8, 4, 3, padding=1)), "border of zeros"),
    "depthwise and a border": (lambda: sequence(Conv(3, 8, 3), Depthwise(8),
                                                Conv(8, 4, 3, padding="same")), "'2' reads it"),
    "depthwise twice and a border": (lambda: sequence(
        Conv(3, 8, 3), Depthwise(8), Depthwise(8, padding=1), Conv(8, 4, 1)), "'2' reads it"),
    "normalisation behind a join, and a border": (lambda: Net(
        lambda net, x: net.c(net.norm(torch.cat([net.a(x), net.b(x)], 1))),
        a=Conv(3, 5, 3), b=Conv(3, 4, 3), norm=nn.BatchNorm2d(9),
        c=Conv(9, 4, 3, padding=1)), "'c' reads it"),
    "sigmoid and a padded mean": (between(nn.Sigmoid(), nn.AvgPool2d(2, padding=1)), "avg_pool2d"),
    "sigmoid and a border of zeros": (between(nn.Sigmoid(), nn.ZeroPad2d(1)), "another number"),
    "sigmoid and a transposed reader": (lambda: sequence(
        Conv(3, 8, 3), nn.Sigmoid(), nn.ConvTranspose2d(8, 4, 3)), "'2' reads it"),
    "sigmoid and one factor a place": (lambda: Net(
        lambda net, x: net.b(net.a(x).sigmoid() * x.mean(1, keepdim=True)[:, :, 1:-1, 1:-1]),
        a=Conv(3, 8, 3), b=Conv(8, 4, 3)), "no single number"),
    "two numbers side by side": (lambda: Net(
        lambda net, x: net.b(torch.cat([y := net.a(x).sigmoid(), 2 * y], 3)),
        a=Conv(3, 8, 3), b=Conv(8, 4, 3)), "no single number"),
    "sum of a sigmoid": (lambda: Net(lambda net, x: net.b(net.a(x).sigmoid().sum((2, 3))),
                                     a=Conv(3, 8, 3), b=nn.Linear(8, 4)), "in front of sum"),
    "infinite": (function(lambda x: 1 / x), "infinite"),
    # Layers that are no plain ones
    "output": (lambda: Conv(3, 8, 3), "gives the network's output"),
    "one filter": (lambda: sequence(Conv(3, 1, 3), Conv(1, 4, 3)), "has one filter"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_cannot_be_followed_stays_whole_and_is_named(kind):
    make, words = WHOLE[kind]
    model = lively(make())
    x = torch.randn(2, 3, 10, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        before = leaves(model(x))
        with pytest.raises(ArgumentError, match=words):
            prune_filters(model, x[:1], "std", rate=0.4)
        assert all(torch.equal(a, b) for a, b in zip(before, leaves(model(x)), strict=True))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("change, words", [
    (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), r"'b' .*prune.remove\(layer"),
    (weight_norm, r"'b' .*torch.nn.utils.remove_weight_norm"),
    (parametrizations.weight_norm, r"'b' .*remove_parametrizations\(layer, 'weight'\)"),
    (spectral_norm, r"'b' .*remove_spectral_norm"),
])
def test_weights_that_are_computed_are_refused_with_what_fixes_them(change, words):
    model = Net(lambda net, x: net.c(net.b(net.a(x))), a=Conv(3, 8, 3), b=Conv(8, 8, 3),
                c=Conv(8, 4, 3))
    change(model.b)
    x = torch.randn(1, 3, 10, 9)
    for refused in (lambda: prune_filters(model, x, "std", rate=0.5), lambda: add_masks(model, x)):
        with pytest.raises(ArgumentError, match=words) as problem:
            refused()
    fix = str(problem.value).partition("fix it with ")[2]
    eval(fix, {"torch": torch, "layer": model.b})
    assert prune_filters(model.eval(), x, "std", rate=0.5).layers["b"].filters == 8


def test_the_rest_of_a_network_is_pruned_where_one_layer_stays():
    model = lively(Net(
        lambda net, x: net.d(net.c(F.group_norm(net.b(F.relu(net.a(x))), 2)).sigmoid()),
        a=Conv(3, 8, 3), b=Conv(8, 8, 3), c=Conv(8, 8, 1), d=Conv(8, 3, 1)))
    whole = copy.deepcopy(model)
    x = torch.randn(2, 3, 10, 9, dtype=torch.float64)
    report = prune_filters(model, x[:1], "l1", rate=0.5)
    assert list(report.layers) == ["a", "c"] and list(report.skipped) == ["b", "d"]
    assert "group_norm" in report.skipped["b"] and "output" in report.skipped["d"]
    gone = {name: np.setdiff1d(np.arange(8), layer.kept) for name, layer in report.layers.items()}
    torch.testing.assert_close(model(x), zeroed(whole, gone, {})(x), rtol=0, atol=1e-10)


def test_a_number_of_channels_in_the_forward_is_refused_with_what_mends_it():
    def make(flat: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
        return Net(lambda net, x: net.c(flat(net.b(net.a(x)))), a=Conv(3, 8, 3), b=Conv(8, 8, 3),
                   c=nn.Linear(8 * 30, 4))

    x = torch.randn(1, 3, 10, 9)
    with pytest.raises(ArgumentError, match=r"filters of 'b' .*does not run.*flatten.*`ignore`"):
        prune_filters(make(lambda x: x.view(-1, 240)), x, "std", rate=0.5)
    ways = [({}, lambda x: x.flatten(1)), ({}, lambda x: x.view(-1, x.shape[1] * 30)),
            ({"ignore": ["b"]}, lambda x: x.view(-1, 240))]
    for more, flat in ways:
        assert "a" in prune_filters(make(flat), x, "std", rate=0.5, **more).layers
