"""Removing filters: scores, what goes with a filter, selection and budgets."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from celosia.compress.cost import measure
from celosia.compress.criteria.scoring import filter_scores
from celosia.compress.filters.prune import prune_filters
from celosia.compress.filters.structure import trace
from celosia.compress.weights.prune import prune
from celosia.models import VDSR, VGG16, AlexNet, DnCNN, LeNet5, ResNet
from celosia_spec.errors import ArgumentError


class Separable(nn.Module):
    """A convolution, a depthwise one and a pointwise one, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.pointwise = nn.Conv2d(8, 6, 1)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.first(x))))
        return self.linear(torch.relu(self.pointwise(x)).mean((2, 3)))


class Dense(nn.Module):
    """Channels of two layers side by side, as in DenseNet, and batch normalisation of both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(9)
        self.third = nn.Conv2d(9, 3, 3)
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = self.norm(torch.cat([x, torch.relu(self.second(x))], 1))
        return self.linear(torch.relu(self.third(x)).mean((2, 3)))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the model in float64 and eval mode, with statistics as after training."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.3, generator=generator)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return model.double().eval()


def zero_filters(model: nn.Module, structure, kept: Mapping[str, np.ndarray]) -> None:
    """Make the output maps of the filters that are not kept zero, and change nothing else."""
    for name, indices in kept.items():
        for member in structure.units[name].members:
            gone = np.setdiff1d(np.arange(structure.units[name].channels), indices)
            conv = model.get_submodule(member)
            norms = [layer for layer in _behind(model, member) if layer is not None]
            for layer in norms or [conv]:
                for parameter in (layer.weight, layer.bias):
                    if parameter is not None:
                        parameter.data[gone] = 0


def _behind(model: nn.Module, name: str) -> list[nn.Module | None]:
    """Return the batch normalisation that these networks have after a convolution."""
    parent, _, last = name.rpartition(".")
    modules = dict(model.named_modules())
    if last.isdigit():
        after = modules.get(f"{parent}.{int(last) + 1}" if parent else str(int(last) + 1))
    else:
        after = modules.get(f"{parent}.{last.replace('conv', 'bn')}" if parent
                            else last.replace("conv", "bn"))
    return [after if isinstance(after, nn.BatchNorm2d) else None]


NETWORKS = {
    "lenet5": (LeNet5, (1, 1, 28, 28)),
    "alexnet": (lambda: AlexNet(0.125, 32), (1, 3, 32, 32)),
    "vgg16": (lambda: VGG16([8] * 13, hidden=(16,)), (1, 3, 32, 32)),
    "vgg16 without norm": (lambda: VGG16([6] * 13, hidden=(), batch_norm=False), (1, 3, 32, 32)),
    "resnet20 A": (lambda: ResNet(20, "A"), (1, 3, 32, 32)),
    "resnet20 B": (lambda: ResNet(20, "B"), (1, 3, 32, 32)),
    "dncnn": (lambda: DnCNN(5, 8), (1, 1, 12, 12)),
    "vdsr": (lambda: VDSR(5, 8), (1, 1, 12, 12)),
    "dense": (Dense, (1, 3, 8, 8)),
}
PRUNED = {"resnet20 A": 9, "resnet20 B": 9, "dncnn": 4, "vdsr": 4, "dense": 3}
"""Convolutions that can lose filters, where these are not all."""


# Scores


def test_scores_are_the_standard_deviation_and_the_sum_of_absolute_values():
    model = LeNet5()
    for method, figure in (("std", lambda row: (sum((w - sum(row) / len(row)) ** 2 for w in row)
                                                / len(row)) ** 0.5),
                           ("l1", lambda row: sum(map(abs, row)))):
        found = filter_scores(model, method)
        assert list(found) == ["conv1", "conv2"]
        for name, values in found.items():
            weight = model.get_submodule(name).weight.detach().double()
            assert values.dtype == np.float64
            wanted = [figure(row.flatten().tolist()) for row in weight]
            np.testing.assert_allclose(values, wanted, rtol=1e-12)


def test_std_and_l1_differ_on_a_filter_of_equal_weights():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 1))
    model[0].weight.data[0] = 1.0
    model[0].weight.data[1] = torch.linspace(-1, 1, 9).view(1, 3, 3)
    assert filter_scores(model, "std")["0"].argmin() == 0
    assert filter_scores(model, "l1")["0"].argmin() == 1


def test_scores_refuse_what_they_cannot_score():
    with pytest.raises(ArgumentError, match="std, l1, mask"):
        filter_scores(LeNet5(), "magnitude")
    with pytest.raises(ArgumentError, match="no convolutions"):
        filter_scores(nn.Linear(2, 2), "l1")
    with pytest.raises(ArgumentError, match="add_masks"):
        filter_scores(LeNet5(), "mask")
    model = LeNet5()
    model.conv2.weight.data[0, 0, 0, 0] = np.nan
    with pytest.raises(ArgumentError, match="conv2"):
        filter_scores(model, "std")


# What goes with a filter


@pytest.mark.parametrize("network", NETWORKS)
def test_the_smaller_network_computes_what_the_original_does_without_the_filters(network):
    make, shape = NETWORKS[network]
    model = randomised(make())
    x = torch.randn(3, *shape[1:], dtype=torch.float64,
                    generator=torch.Generator().manual_seed(1))
    structure, zeroed = trace(model, x[:1]), copy.deepcopy(model)
    before = {name: unit.channels for name, unit in structure.units.items()}
    report = prune_filters(model, x[:1], "std", rate=0.4)
    assert len(report.layers) == PRUNED.get(network, len(filter_scores(zeroed, "std")))
    for name, layer in report.layers.items():
        assert layer.filters == before[name]
        assert len(layer.kept) == int(before[name] * 0.6)
        assert model.get_submodule(name).weight.shape[0] == len(layer.kept)
        assert model.get_submodule(name).out_channels == len(layer.kept)
    zero_filters(zeroed, structure, {n: np.array(v.kept) for n, v in report.layers.items()})
    with torch.no_grad():
        torch.testing.assert_close(model(x), zeroed(x), rtol=0, atol=1e-10)
    cost = measure(model, x[:1])
    assert (report.after.macs, report.after.parameters) == (cost.macs, cost.parameters)
    skipped = set(filter_scores(zeroed, "std")) - set(report.layers)
    assert set(report.skipped) == skipped, "a layer that stays whole is named, with the reason"


def test_coupled_filters_of_projection_shortcuts_go_together():
    model = randomised(ResNet(14, "B"))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    structure, zeroed = trace(model, x[:1], coupled="prune"), copy.deepcopy(model)
    report = prune_filters(model, x[:1], "l1", rate=0.3, coupled="prune")
    assert not report.skipped
    kept = {name: len(layer.kept) for name, layer in report.layers.items()}
    assert set(kept) == set(filter_scores(zeroed, "l1"))
    assert {kept[name] for name in ("conv1", "layer1.0.conv2", "layer1.1.conv2")} == {11}
    assert {kept[name] for name in ("layer2.0.conv2", "layer2.0.shortcut.0")} == {22}
    stream = structure.units["layer2.0.conv2"]
    summed = sum(filter_scores(zeroed, "l1")[member] for member in stream.members)
    best = np.sort(np.argsort(-summed, kind="stable")[:22])
    assert report.layers["layer2.0.shortcut.0"].kept == tuple(best)
    for unit in structure.units.values():
        for member in unit.members:
            gone = np.setdiff1d(np.arange(unit.channels), report.layers[member].kept)
            norms = {"conv1": "bn1", "conv2": "bn2", "0": "1"}
            parent, _, last = member.rpartition(".")
            norm = zeroed.get_submodule(f"{parent}.{norms[last]}".lstrip("."))
            norm.weight.data[gone] = norm.bias.data[gone] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(x), zeroed(x), rtol=0, atol=1e-10)


def test_a_stream_that_a_shortcut_pads_is_never_pruned():
    model = ResNet(8, "A")
    report = prune_filters(model, torch.zeros(1, 3, 32, 32), "std", rate=0.5, coupled="prune")
    assert [layer.filters for layer in report.layers.values()] == [16, 32, 64]
    assert "padded" in report.skipped["conv1"]
    assert [model.bn1.num_features, model.layer2[0].bn2.num_features] == [16, 32]


def test_a_depthwise_layer_loses_channels_with_the_layer_before_it():
    model = randomised(Separable())
    zeroed = copy.deepcopy(model)
    report = prune_filters(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64), "l1", rate=0.5)
    assert model.depthwise.groups == model.depthwise.weight.shape[0] == 4
    assert set(report.layers) == {"first", "pointwise"}
    assert "depthwise" in report.skipped["depthwise"]
    for name, layer in report.layers.items():
        part = zeroed.get_submodule(name)
        gone = np.setdiff1d(np.arange(layer.filters), layer.kept)
        part.weight.data[gone] = part.bias.data[gone] = 0
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), zeroed(x), rtol=0, atol=1e-10)


def test_layers_that_cannot_lose_filters_are_named_with_the_reason():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Conv2d(3, 3, 3, padding=1)
            self.grouped = nn.Conv2d(3, 6, 3, groups=3)
            self.scaled, self.scale = nn.Conv2d(6, 4, 1), nn.Parameter(torch.ones(4, 1, 1))
            self.free = nn.Conv2d(4, 4, 1)
            self.grouping, self.groups = nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)
            self.out, self.unused = nn.Conv2d(4, 2, 1), nn.Conv2d(1, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.grouped(self.twice(torch.relu(self.twice(x))))
            x = self.free(self.scaled(x) * self.scale)
            return self.out(self.groups(self.grouping(x)))

    report = prune_filters(Odd(), torch.zeros(1, 3, 8, 8), "std", rate=0.5)
    assert list(report.layers) == ["free"]
    for name, reason in {"twice": "2 times", "unused": "0 times", "grouped": "grouped",
                         "scaled": "parameter", "grouping": "GroupNorm", "out": "output"}.items():
        assert reason in report.skipped[name]


def test_a_network_that_would_not_run_is_refused_and_left_as_it_was():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.relu(self.conv(x)).view(-1, 4, 36).mean(2))

    model = Fixed()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ArgumentError, match="does not run.*ignore"):
        prune_filters(model, torch.zeros(1, 1, 8, 8), "std", rate=0.5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_mode_frozen_parameters_memory_order_and_hooks_stay_as_they_were(training):
    model = VGG16([8] * 13, hidden=()).to(memory_format=torch.channels_last).train(training)
    model.features[1].eval()
    model.features[0].weight.requires_grad_(False)
    with torch.no_grad():
        prune_filters(model, torch.zeros(1, 3, 32, 32), "std", rate=0.5)
        assert torch.is_grad_enabled() is False
    assert model.training is training and model.features[4].training is training
    assert not model.features[1].training
    assert not model.features[0].weight.requires_grad
    assert model.features[3].weight.requires_grad
    assert model.features[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert model.features[3].weight.shape[:2] == (4, 4)
    assert all(not layer._forward_hooks for layer in model.modules())
    model.train()(torch.randn(4, 3, 32, 32)).sum().backward()
    assert model.features[3].weight.grad is not None and model.features[0].weight.grad is None


# Selection


def test_the_filters_with_the_lowest_scores_go_and_ties_keep_the_lower_index():
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 1))
    pattern = torch.linspace(-1, 1, 9).view(1, 3, 3)
    for index, scale in enumerate([3, 1, 2, 1, 1, 5]):
        model[0].weight.data[index] = scale * pattern
    weight = model[0].weight.detach().clone()
    report = prune_filters(model, torch.zeros(1, 1, 6, 6), "std", rate=0.2)
    assert report.layers["0"].kept == (0, 1, 2, 5), "int(6 * 0.8) = 4 stay"
    assert torch.equal(model[0].weight, weight[[0, 1, 2, 5]])
    assert model[2].weight.shape == (1, 4, 1, 1)


def test_filters_that_all_score_the_same_do_not_go_by_their_index():
    x = torch.zeros(1, 1, 6, 6)
    make = lambda: nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(),
                                 nn.Conv2d(4, 2, 1))
    for scope in ("layer", "global"):
        with pytest.raises(ArgumentError, match="filters of layer '0' the same score.*'l1'"):
            prune_filters(make(), x, "std", rate=0.5, scope=scope)
    assert len(prune_filters(make(), x, "l1", rate=0.5).layers["0"].kept) == 4
    report = prune_filters(make(), x, "std", rate=0.5, ignore=["0"])
    assert list(report.layers) == ["2"]
    model = make()
    model[0].weight.data.fill_(-1)
    with pytest.raises(ArgumentError, match="same score"):
        prune_filters(model, x, "l1", rate=0.5)
    assert model[0].out_channels == 8


def test_a_rate_is_read_as_the_decimal_that_was_meant():
    model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.Conv2d(10, 1, 1))
    prune_filters(model, torch.zeros(1, 1, 6, 6), "l1", rate=0.9)     # 10 * (1 - 0.9) < 1 in float
    assert model[0].out_channels == 1


def test_rates_by_layer_leave_the_others_alone():
    model = LeNet5()
    report = prune_filters(model, np.zeros((1, 1, 28, 28), np.float32), "l1", rate={"conv2": 0.25})
    assert [len(layer.kept) for layer in report.layers.values()] == [6, 12]
    assert model.fc1.in_features == 12 * 16
    model = LeNet5()
    report = prune_filters(model, torch.zeros(1, 1, 28, 28), "l1", rate=0.5, ignore=["conv1"])
    assert list(report.layers) == ["conv2"] and "ignore" in report.skipped["conv1"]


def test_global_scope_lets_layers_compete_and_spares_the_best_of_each():
    model = LeNet5()
    model.conv1.weight.data *= 1e-3
    report = prune_filters(model, torch.zeros(1, 1, 28, 28), "std", rate=0.5, scope="global")
    assert [len(layer.kept) for layer in report.layers.values()] == [1, 10]


@pytest.mark.parametrize("kind", ["macs", "parameters", "conv_macs"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_budget_is_met_by_the_smallest_removal(kind, scope):
    torch.manual_seed(0)
    model, x = LeNet5(), torch.zeros(1, 1, 28, 28)
    report = prune_filters(copy.deepcopy(model), x, "std", **{kind: 0.4}, scope=scope)
    removed = sum(layer.filters - len(layer.kept) for layer in report.layers.values())

    def left(network: nn.Module) -> int:
        cost = measure(network, x)
        if kind == "parameters":
            return cost.parameters
        return sum(layer.macs for name, layer in cost.layers.items()
                   if kind == "macs" or name.startswith("conv"))

    candidates = []     # every smaller removal, each tried on a network of its own
    rates = (sorted({i / 6 for i in range(6)} | {i / 16 for i in range(16)}) if scope == "layer"
             else [i / 22 for i in range(20)])
    for rate in rates:
        twin = copy.deepcopy(model)
        try:
            other = prune_filters(twin, x, "std", rate=rate, scope=scope)
        except ArgumentError:
            continue
        gone = sum(layer.filters - len(layer.kept) for layer in other.layers.values())
        candidates.append((gone, left(twin)))
    limit = 0.6 * left(model)
    assert min(gone for gone, cost in candidates if cost <= limit) == removed
    assert getattr(report.after, kind) == dict(candidates)[removed] <= limit


def test_settings_that_cannot_be_meant_are_refused():
    x = torch.zeros(1, 1, 28, 28)
    cases = [
        ({}, "give one of"), ({"rate": 0.1, "macs": 0.1}, "given: rate, macs"),
        ({"rate": 1.0}, "below 1"), ({"rate": True}, "below 1"), ({"macs": -0.1}, "at least 0"),
        ({"macs": {"conv1": 0.5}}, "one number"), ({"rate": {"conv9": 0.5}}, "conv9"),
        ({"rate": {"conv1": 0.9}}, "none of its 6 filters"), ({"macs": 0.999}, "cannot be met"),
        ({"rate": 0.99, "scope": "global"}, "lower one"), ({"rate": 0.5, "scope": "all"}, "scope"),
        ({"rate": {"conv1": 0.5}, "scope": "global"}, "one rate"), ({"rate": 0.5, "rounds": 0},
                                                                     "least"),
        ({"rate": 0.5, "ignore": ["fc1"]}, "fc1"), ({"threshold": 0.1, "rounds": 2}, "one round"),
        ({"rate": 0.5, "coupled": "no"}, "coupled"), ({"rate": 0.5, "ignore": ["conv1", "conv2"]},
                                                    "no filter can be removed"),
    ]
    for settings, message in cases:
        with pytest.raises(ArgumentError, match=message):
            prune_filters(LeNet5(), x, "std", **settings)
    with pytest.raises(ArgumentError, match="unknown method"):
        prune_filters(LeNet5(), x, "magnitude", rate=0.5)
    with pytest.raises(ArgumentError, match="added to that of"):
        prune_filters(ResNet(8, "B"), torch.zeros(1, 3, 32, 32), "std", rate={"conv1": 0.5})
    with pytest.raises(ArgumentError, match="go with those of 'conv1'"):
        prune_filters(ResNet(8, "B"), torch.zeros(1, 3, 32, 32), "std", coupled="prune",
                      rate={"layer1.0.conv2": 0.5})
    masked = LeNet5()
    prune(masked, "magnitude", rates=0.5)
    with pytest.raises(ArgumentError, match="make_permanent"):
        prune_filters(masked, x, "std", rate=0.5)


def test_a_threshold_spares_the_best_filter_of_a_layer():
    model = LeNet5()
    scores = filter_scores(model, "std")
    middle = np.sort(scores["conv2"])[5]
    report = prune_filters(model, torch.zeros(1, 1, 28, 28), "std",
                           threshold={"conv1": 1e9, "conv2": middle})
    assert report.layers["conv1"].kept == (int(scores["conv1"].argmax()),)
    assert report.layers["conv2"].kept == tuple(np.flatnonzero(scores["conv2"] >= middle))
    assert len(report.layers["conv2"].kept) == 11
