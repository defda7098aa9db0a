"""Which networks lose filters exactly, and which layers stay whole, by the kinds of operators."""

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

from celosia.compress.cost import measure
from celosia.compress.filters.mask_layer import add_masks, fold_masks
from celosia.compress.filters.prune import prune_filters
from celosia.compress.masks.filters import filter_masks
from celosia_spec.errors import ArgumentError

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


class Padding(nn.Conv2d):
    """Pads by itself, as networks ported from TensorFlow do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


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


def hooked(layer: nn.Module, hook: Callable[..., Any]) -> nn.Module:
    layer.register_forward_hook(hook)
    return layer


def mobile(**bias: Any) -> nn.Module:
    return sequence(Conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), Depthwise(8, padding=1, **bias),
                    nn.BatchNorm2d(8), nn.ReLU6(), Conv(8, 6, 1, **bias), nn.BatchNorm2d(6),
                    nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def two_names() -> nn.Module:
    net = Net(lambda net, x: net.b(F.relu(net.a(x))), a=Conv(3, 8, 3), b=Conv(8, 2, 3))
    net.same = nn.ModuleList([net.a, net.b])
    return net


EXACT: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    # Rearranged
    "channels last, flattened": (lambda: Net(
        lambda net, x: net.b(F.relu(net.a(x)).permute(0, 2, 3, 1).flatten(1)),
        a=Conv(3, 8, 3), b=nn.Linear(8 * 8 * 7, 4)), {}),
    "a map flattened twice": (lambda: Net(
        lambda net, x: net.b(torch.cat([y := net.a(x).flatten(1), y.square()], 1)),
        a=Conv(3, 8, 3), b=nn.Linear(2 * 8 * 56, 4)), {}),
    "two flattened maps joined": (lambda: Net(
        lambda net, x: net.c(torch.cat([net.a(x).flatten(1), net.b(x).flatten(1)], 1)),
        a=Conv(3, 8, 3), b=Conv(3, 4, 3, stride=2), c=nn.Linear(8 * 56 + 4 * 16, 4)), {}),
    "pyramid of pools": (lambda: Net(
        lambda net, x: net.b(torch.cat([F.adaptive_max_pool2d(y, n).flatten(1)
                                        for y in [net.a(x)] for n in (1, 2, 3)], 1)),
        a=Conv(3, 8, 3), b=nn.Linear(8 * 14, 4)), {}),
    "tokens": (lambda: Net(
        lambda net, x: net.b(net.a(x).flatten(2).transpose(1, 2)).mean(1),
        a=Conv(3, 8, 3), b=nn.Linear(8, 4)), {}),
    "rows as another network's channels": (lambda: Net(
        lambda net, x: net.b(net.a(x).flatten(2)), a=Conv(3, 8, 3), b=nn.Conv1d(8, 4, 3)), {}),
    "stacked and reduced": (lambda: Net(
        lambda net, x: net.b(torch.stack([y := net.a(x), 2 * y], 2).sum(2).flip(3)[:, :, 1:]),
        a=Conv(3, 8, 3), b=Conv(8, 4, 3)), {}),
    "largest of each row": (lambda: Net(
        lambda net, x: net.b(net.a(x).sigmoid().max(3)[0].min(dim=2, keepdim=True).values[..., 0]),
        a=Conv(3, 8, 3), b=nn.Linear(8, 4)), {}),
    "joined side by side": (lambda: Net(
        lambda net, x: net.b(torch.cat([y := net.a(x), y.neg()], 3)),
        a=Conv(3, 8, 3), b=Conv(8, 4, 3)), {}),
    # A zero that becomes a number
    "mobile": (lambda: mobile(bias=False), {"0": "1", "6": "7"}),
    "mobile with biases": (lambda: mobile(), {"0": "1", "6": "7"}),
    "depthwise, and a layer without bias": (lambda: sequence(
        Conv(3, 8, 3), nn.ReLU(), Depthwise(8), nn.Hardswish(), Conv(8, 4, 3, bias=False)), {}),
    "depthwise twice": (lambda: sequence(
        Conv(3, 8, 3), Depthwise(8, padding=1), nn.ELU(), Depthwise(8), nn.Flatten(),
        nn.Linear(8 * 48 - 8 * 18, 4, bias=False)), {}),
    "activations that are not zero at zero": (lambda: sequence(
        Conv(3, 8, 3), nn.BatchNorm2d(8), nn.Hardsigmoid(), nn.MaxPool2d(2, padding=1),
        Conv(8, 6, 3), nn.Softplus(), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(12, 4)),
        {"0": "1"}),
    "functional ones": (lambda: Net(
        lambda net, x: net.b(1 - torch.exp(net.a(x))), a=Conv(3, 8, 3), b=Conv(8, 4, 3)), {}),
    "normalisation behind a join": (lambda: Net(
        lambda net, x: net.c(F.relu(net.norm(torch.cat([net.a(x), net.b(x)], 1)))),
        a=Conv(3, 5, 3), b=Conv(3, 4, 3), norm=nn.BatchNorm2d(9), c=Conv(9, 4, 3)), {}),
    "normalisation of a map that others read": (lambda: Net(
        lambda net, x: net.c(net.norm(y := net.a(x))) + net.b(y),
        a=Conv(3, 5, 3), b=Conv(5, 4, 1), norm=nn.BatchNorm2d(5), c=Conv(5, 4, 1, bias=False)), {}),
    "normalisation without gamma": (lambda: sequence(
        Conv(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Tanh(), Conv(8, 4, 3)), {}),
    "normalisation by the map itself": (lambda: sequence(
        Conv(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), Conv(8, 4, 1)), {"0": "1"}),
    "slopes": (lambda: sequence(
        Conv(3, 8, 3), Depthwise(8), nn.PReLU(8), Conv(8, 6, 1), nn.PReLU(), Conv(6, 4, 3)), {}),
    # Borders and sizes
    "borders of their own numbers": (lambda: sequence(
        Conv(3, 8, 3), nn.Sigmoid(), Conv(8, 6, 3, padding=1, padding_mode="reflect"), nn.ReLU(),
        nn.ZeroPad2d(1), Conv(6, 4, 3), ), {}),
    "a border like the rest": (lambda: sequence(
        Conv(3, 8, 3), nn.Sigmoid(), nn.ConstantPad2d(1, 0.5), Conv(8, 4, 3)), {}),
    "larger and smaller": (lambda: sequence(
        Conv(3, 8, 3), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ConvTranspose2d(8, 6, 3, stride=2), nn.LeakyReLU(), Conv(6, 5, 3, padding="same"),
        nn.AvgPool2d(2, padding=1), Conv(5, 4, 1, padding="same")), {}),
    "a layer that pads by itself": (lambda: sequence(
        Conv(3, 8, 3), nn.ReLU(), Padding(8, 4, 2)), {}),
    # Factors
    "a learnt scale, and one of each place": (lambda: Net(
        lambda net, x: net.b(net.a(x) * net.scale * x.mean(1, keepdim=True)[:, :, 1:-1, 1:-1]),
        a=Conv(3, 8, 3), b=Conv(8, 4, 3), scale=nn.Parameter(torch.ones(1))), {}),
    "attention to places by one filter": (lambda: Net(
        lambda net, x: net.b((y := net.a(x)) * torch.sigmoid(net.c(y))),
        a=Conv(3, 8, 3), b=Conv(8, 4, 3), c=Conv(8, 1, 1)), {}),
    "a hook that scales": (lambda: sequence(
        hooked(Conv(3, 8, 3), lambda layer, given, output: 3 * output), Conv(8, 4, 3)), {}),
    # Forms of networks
    "outputs in a dictionary": (lambda: Net(
        lambda net, x: {"out": [net.b(F.relu(net.a(x)))], "in": (x,)},
        a=Conv(3, 8, 3), b=Conv(8, 4, 3)), {}),
    "in place": (lambda: Net(
        lambda net, x: net.b(F.relu_(net.a(x)).mul_(2)), a=Conv(3, 8, 3), b=Conv(8, 4, 3)), {}),
    "a layer under two names": (two_names, {}),
    "a branch on values of the input": (lambda: Net(
        lambda net, x: net.b(net.a(x)) if x.sum() != 0 else net.b(x), a=Conv(3, 8, 3),
        b=Conv(8, 4, 3)), {}),
}

@pytest.mark.parametrize("kind", EXACT)
def test_what_is_left_computes_what_the_network_does_with_the_filters_zeroed(kind):
    make, norms = EXACT[kind]
    model = lively(make())
    x = torch.randn(2, 3, 10, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = copy.deepcopy(model)
    report = prune_filters(model, x[:1], "std", rate=0.4)
    gone = {name: np.setdiff1d(np.arange(layer.filters), layer.kept)
            for name, layer in report.layers.items()}
    assert gone and all(len(indices) for indices in gone.values())
    for found, wanted in zip(leaves(model(x)), leaves(zeroed(whole, gone, norms)(x)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert not torch.allclose(leaves(model(x))[0], leaves(whole(x))[0], atol=1e-6)
    if all(isinstance(layer, nn.Conv2d) for layer in model.modules()
           if isinstance(layer, nn.modules.conv._ConvNd)):
        cost = measure(model, x[:1])
        assert (report.after.macs, report.after.parameters) == (cost.macs, cost.parameters)


# What stays whole


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


def excite(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A depthwise convolution, and a factor for each channel made from the means of all."""
    x = F.hardswish(net.deep(F.hardswish(net.a(x))))
    scale = F.hardsigmoid(net.up(F.relu(net.down(F.adaptive_avg_pool2d(x, 1)))))
    return net.b(x * scale)


def test_factors_of_channels_are_pruned_with_them():
    model = lively(Net(excite, a=Conv(3, 8, 3), deep=Depthwise(8), down=Conv(8, 4, 1),
                       up=Conv(4, 8, 1), b=Conv(8, 5, 1, bias=False)))
    whole = copy.deepcopy(model)
    x = torch.randn(2, 3, 10, 9, dtype=torch.float64)
    alone = prune_filters(copy.deepcopy(model), x[:1], "std", rate=0.5)
    assert list(alone.layers) == ["down"] and "added to that of 'up'" in alone.skipped["a"]
    report = prune_filters(model, x[:1], "std", rate=0.5, coupled="prune")
    assert report.layers["a"] == report.layers["up"] and len(report.layers["a"].kept) == 4
    gone = {name: np.setdiff1d(np.arange(layer.filters), layer.kept)
            for name, layer in report.layers.items()}
    torch.testing.assert_close(model(x), zeroed(whole, gone, {})(x), rtol=0, atol=1e-10)
    cost = measure(model, x[:1])
    assert model.b.bias is not None, "which holds what is left of the channels that went"
    assert (report.after.macs, report.after.parameters) == (cost.macs, cost.parameters)


def test_a_difference_is_found_and_the_layer_named_and_the_network_as_it_was():
    model = lively(Net(lambda net, x: net.c(net.b(y := net.a(x)) / y.shape[1]), a=Conv(3, 8, 3),
                       b=Conv(8, 8, 3), c=Conv(8, 4, 3))).train()
    x = torch.randn(1, 3, 10, 9, dtype=torch.float64)
    parameters, twin = dict(model.named_parameters()), copy.deepcopy(model)
    with pytest.raises(ArgumentError, match=r"filters of 'a' the outputs differ by .* `ignore`"):
        prune_filters(model, x, "std", rate=0.5)
    assert model.training and model.a.out_channels == model.b.in_channels == 8
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name] and torch.equal(parameter, twin.get_parameter(name))
    report = prune_filters(model, x, "std", rate=0.5, ignore=["a"])
    assert list(report.layers) == ["b"]


def test_frozen_layers_stay_frozen():
    model = mobile(bias=False).requires_grad_(False)
    model[6].weight.requires_grad_(True)
    prune_filters(model, torch.randn(1, 3, 10, 9), "std", rate=0.5)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        "6.weight"]
    deep = sequence(Conv(3, 8, 3), Depthwise(8), Conv(8, 4, 1, bias=False)).requires_grad_(False)
    prune_filters(deep, torch.randn(1, 3, 10, 9), "std", rate=0.5)
    assert deep[2].bias is not None and not any(p.requires_grad for p in deep.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floating_point_types_are_pruned(dtype):
    model = lively(mobile()).to(dtype)
    x = torch.randn(1, 3, 10, 9, dtype=dtype)
    with torch.no_grad():
        model[0].weight[:4] = model[0].bias[:4] = model[1].weight[:4] = model[1].bias[:4] = 0
        before = model(x)
        report = prune_filters(model, x, "l1", rate={"0": 0.5})
    assert report.layers["0"].kept == (4, 5, 6, 7)
    assert all(p.dtype == dtype for p in model.parameters())
    torch.testing.assert_close(model(x), before, rtol=0.05, atol=0.02)


def test_constants_are_those_of_the_network_as_it_is_in_each_round():
    model = lively(sequence(Conv(3, 12, 3), Depthwise(12), nn.Sigmoid(), Conv(12, 4, 1)))
    x = torch.randn(2, 3, 10, 9, dtype=torch.float64)
    wanted, found = [], []

    def tune(network: nn.Module, round: int) -> None:
        with torch.no_grad():
            found.append(network(x))
            for parameter in network.parameters():
                parameter *= 1.25
            dead = copy.deepcopy(network)
            weakest = dead[0].weight.flatten(1).std(1, correction=0).argsort()[:3]
            dead[0].weight[weakest] = dead[0].bias[weakest] = 0
            wanted.append(dead(x))

    prune_filters(model, x[:1], "std", rate=0.75, rounds=3, finetune=tune)
    assert model[0].out_channels == 3 and len(found) == 3
    for left, whole in zip(found[1:], wanted, strict=False):
        torch.testing.assert_close(left, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("example", [
    torch.zeros(1, 3, 10, 9), np.ones((1, 3, 10, 9)),
    torch.zeros(1, 3, 10, 9, dtype=torch.uint8)])
def test_examples_of_other_types(example):
    model = lively(Net(lambda net, x: net.b(net.a(x.double())), a=Conv(3, 8, 3), b=Conv(8, 4, 3)))
    assert prune_filters(model, example, "std", rate=0.5).after.macs == 4 * 27 * 56 + 4 * 36 * 30


def test_examples_that_the_network_does_not_take_are_refused():
    model = sequence(Conv(3, 8, 3), Conv(8, 4, 3))
    for example, words in (((torch.zeros(1), torch.zeros(2)), "example_input: not an array"),
                           (torch.zeros(1, 4, 8, 8), "does not run on the example"),
                           ("picture", "example_input: ")):
        with pytest.raises(ArgumentError, match=words):
            prune_filters(model, example, "std", rate=0.5)


def test_networks_that_are_not_the_same_each_time_are_refused():
    calls = []

    def counted(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return net.b(net.a(x)) * len(calls)

    for run, words in ((counted, "other outputs each time"),
                       (lambda net, x: net.b(F.dropout(net.a(x), 0.5, True)), "`ignore`")):
        model = Net(run, a=Conv(3, 8, 3), b=Conv(8, 4, 3))
        with pytest.raises(ArgumentError, match=words):
            prune_filters(model, torch.ones(1, 3, 10, 9), "std", rate=0.5)
        assert model.a.out_channels == 8


# Numbers that no reader can hold


@pytest.mark.parametrize("layers, readers", [
    ([Conv(3, 8, 3), nn.Sigmoid(), Conv(8, 4, 3, padding=1)], {2: 1}),
    ([Conv(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), Conv(8, 4, 3, padding=1)], {3: 1}),
    ([Conv(3, 8, 3), Depthwise(8), nn.Hardshrink(), Depthwise(8, padding=1), nn.BatchNorm2d(8),
      nn.Threshold(0.1, 0.1), Conv(8, 4, 1, bias=False)], {6: 1}),
    ([Conv(3, 8, 3), nn.Sigmoid(), nn.AvgPool2d(2, padding=1), nn.ConvTranspose2d(8, 4, 3)],
     {3: 0}),
    ([Conv(3, 8, 3), nn.Sigmoid(), nn.ZeroPad2d(1), nn.PReLU(8), Conv(8, 4, 1)], {4: 1}),
])
def test_numbers_that_no_reader_can_hold_are_dropped_where_that_is_asked_for(layers, readers):
    model = lively(sequence(*copy.deepcopy(layers)))
    x = torch.randn(2, 3, 10, 9, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="constants='drop'"):
        prune_filters(model, x[:1], "std", rate=0.5)
    whole, names = copy.deepcopy(model), list(model.state_dict())
    report = prune_filters(model, x[:1], "std", rate=0.5, constants="drop")
    gone = np.setdiff1d(np.arange(8), report.layers["0"].kept)
    assert len(gone) == 4 and report.choices["constants"] == "drop"
    whole = zeroed(whole, {"0": gone}, {})
    for index, axis in readers.items():
        whole[index].weight.data.index_fill_(axis, torch.from_numpy(gone), 0)
    torch.testing.assert_close(model(x), whole(x), rtol=0, atol=1e-10)
    assert list(model.state_dict()) == names, "and no layer gets a bias"
    assert report.after.parameters == sum(p.numel() for p in model.parameters())


def test_masks_are_folded_exactly_or_not_at_all():
    model = sequence(Conv(3, 8, 3), nn.Sigmoid(), Conv(8, 4, 3, padding=1))
    x = torch.randn(1, 3, 10, 9)
    with pytest.raises(ArgumentError, match="border of zeros"):
        add_masks(model, x)
    masked = sequence(Conv(3, 8, 3), Conv(8, 4, 3))
    add_masks(masked, x)
    with pytest.raises(ArgumentError, match="must be 'fold'"):
        prune_filters(masked, x, "mask", rate=0.5, constants="drop")
    with pytest.raises(ArgumentError, match="constants must be one of"):
        prune_filters(sequence(Conv(3, 8, 3), Conv(8, 4, 3)), x, "std", rate=0.5, constants="all")


# Masks


@pytest.mark.parametrize("kind", [kind for kind in EXACT if "without gamma" not in kind])
def test_folding_masks_computes_what_the_masked_network_does_with_masks_at_zero(kind):
    model = lively(EXACT[kind][0]())
    x = torch.randn(2, 3, 10, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = leaves(model(x))
    names = add_masks(model, x[:1])
    assert names and all(torch.equal(a, b) for a, b in zip(before, leaves(model(x)), strict=True))
    with torch.no_grad():
        for index, mask in enumerate(filter_masks(model).values()):
            mask.copy_(torch.linspace(-2, 1.7, len(mask), dtype=mask.dtype) + 0.1 * index)
            mask[1::2] = 0
    wanted = leaves(model(x))
    report = fold_masks(model, x[:1], threshold=1e-6)
    assert all(len(layer.kept) == -(-layer.filters // 2) for layer in report.layers.values())
    assert set(report.layers) == set(names) and not filter_masks(model)
    for found, want in zip(leaves(model(x)), wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-10)


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
