"""Which networks lose filters exactly, by the kinds of operators."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from celosia.compress.cost import measure
from celosia.compress.filters.mask_layer import add_masks, fold_masks
from celosia.compress.filters.prune import prune_filters
from celosia.compress.masks.filters import filter_masks
from celosia_spec.errors import ArgumentError
from filter_networks import Conv, Depthwise, Net, leaves, lively, mobile, sequence, zeroed


class Padding(nn.Conv2d):
    """Pads by itself, as networks ported from TensorFlow do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def hooked(layer: nn.Module, hook: Callable[..., Any]) -> nn.Module:
    layer.register_forward_hook(hook)
    return layer


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
