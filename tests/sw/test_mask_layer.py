"""Filter masks: where they act, training, thresholds, exact folding, the whole method."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from celosia.compress.cost import measure
from celosia.compress.criteria.scoring import filter_scores
from celosia.compress.filters.mask_layer import (
    add_masks,
    fold_masks,
    mask_penalty,
    proximal_step,
    prune_with_masks,
    threshold_for,
)
from celosia.compress.filters.prune import prune_filters
from celosia.compress.masks.filters import filter_masks
from celosia.compress.training.finetune import FineTune
from celosia.compress.weights.prune import prune
from celosia.models import VGG16, AlexNet, DnCNN, LeNet5, ResNet
from celosia_spec.errors import ArgumentError
from tolerance import operations, rounding

NETWORKS = {
    "lenet5": (LeNet5, (1, 1, 28, 28), 2),
    "alexnet": (lambda: AlexNet(0.125, 32), (1, 3, 32, 32), 5),
    "vgg16": (lambda: VGG16([8] * 13, hidden=(16,)), (1, 3, 32, 32), 13),
    "resnet20 A": (lambda: ResNet(20, "A"), (1, 3, 32, 32), 9),
    "resnet8 B": (lambda: ResNet(8, "B"), (1, 3, 32, 32), 3),
    "dncnn": (lambda: DnCNN(5, 8), (1, 1, 12, 12), 4),
}


def masked(network: str, on: str = "mask") -> tuple[nn.Module, torch.Tensor]:
    """Return a network in float64 with masks of both signs, and inputs."""
    make, shape, layers = NETWORKS[network]
    torch.manual_seed(0)
    model = make().double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.2)
    x = torch.randn(2, *shape[1:], dtype=torch.float64)
    assert len(add_masks(model, x[:1], on=on)) == layers
    for mask in filter_masks(model).values():
        mask.data.normal_(0, 1)
    return model, x


# Where masks act


@pytest.mark.parametrize("network", NETWORKS)
def test_a_mask_multiplies_the_map_of_its_filter(network):
    make, shape, _ = NETWORKS[network]
    model = make().double().eval()
    x = torch.randn(2, *shape[1:], dtype=torch.float64)
    names, before = list(model.state_dict()), model(x)
    first = add_masks(model, x[:1])[0]
    mask = filter_masks(model)[first]
    assert mask.shape == (model.get_submodule(first).out_channels,)
    norm = {"vgg16": "features.1", "resnet20 A": "layer1.0.bn1", "resnet8 B": "layer1.0.bn1"}
    maps = []
    part = model.get_submodule(norm.get(network, first))
    handle = part.register_forward_hook(lambda layer, given, output: maps.append(output))
    assert torch.equal(model(x), before), "masks of one change nothing"
    mask.data[1] = -2.5
    assert not torch.equal(model(x), before)
    handle.remove()
    assert torch.allclose(maps[1][:, 1], -2.5 * maps[0][:, 1], rtol=0, atol=1e-12)
    assert torch.equal(maps[1][:, 2:], maps[0][:, 2:])
    fold_masks(model, x[:1], threshold=-1.0)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("training", [True, False])
def test_a_mask_behind_batch_normalisation_is_not_divided_out(training):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)).double()
    model.train(training)
    x = torch.randn(4, 1, 8, 8).double()
    add_masks(model, x[:1])
    assert model.training is training
    before = copy.deepcopy(model)(x).detach()
    filter_masks(model)["0"].data.mul_(3)
    bias = model[2].bias.detach()
    torch.testing.assert_close(model(x).detach() - bias, 3 * (before - bias), rtol=0,
                               atol=rounding(operations(model)) * float(3 * before.abs().max()))


def test_masks_go_where_they_can_and_refuse_where_they_cannot():
    model, x = ResNet(8, "B"), torch.zeros(1, 3, 32, 32)
    assert add_masks(model, x, layers=["layer2.0.conv1"]) == ("layer2.0.conv1",)
    with pytest.raises(ArgumentError, match="already"):
        add_masks(model, x)
    for layers, message in ((["layer1.0.conv2"], "added to that of"), (["fc"], "no convolution")):
        with pytest.raises(ArgumentError, match=message):
            add_masks(ResNet(8, "B"), x, layers=layers)
    with pytest.raises(ArgumentError, match="no batch normalisation"):
        add_masks(LeNet5(), torch.zeros(1, 1, 28, 28), on="gamma")
    with pytest.raises(ArgumentError, match="on must be"):
        add_masks(LeNet5(), torch.zeros(1, 1, 28, 28), on="beta")
    bare = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Conv2d(2, 1, 1))
    with pytest.raises(ArgumentError, match="no gamma"):
        add_masks(bare, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ArgumentError, match="fold_masks first"):
        prune_filters(model, x, "std", rate=0.5)
    with pytest.raises(ArgumentError, match="no filter masks"):
        fold_masks(LeNet5(), torch.zeros(1, 1, 28, 28), rate=0.5)


def test_masks_survive_a_copy_and_have_one_parameter_each():
    model = VGG16([4] * 13, hidden=())
    before = sum(parameter.numel() for parameter in model.parameters())
    add_masks(model, torch.zeros(1, 3, 32, 32))
    twin = copy.deepcopy(model)
    assert sum(parameter.numel() for parameter in twin.parameters()) == before + 4 * 13
    filter_masks(twin)["features.0"].data.zero_()
    assert filter_masks(model)["features.0"].min() == 1
    assert filter_scores(twin, "mask")["features.0"].max() == 0
    add_masks(gamma := VGG16([4] * 13, hidden=()), torch.zeros(1, 3, 32, 32), on="gamma")
    assert sum(parameter.numel() for parameter in gamma.parameters()) == before
    assert filter_masks(gamma)["features.3"] is gamma.features[4].weight


# Training


def test_the_penalty_is_the_sum_of_absolute_values_and_the_step_its_proximal_map():
    model = LeNet5()
    add_masks(model, torch.zeros(1, 1, 28, 28))
    masks = filter_masks(model)
    masks["conv1"].data.copy_(torch.tensor([0.5, -0.25, 0.0, 1.0, -1.0, 0.05]))
    masks["conv2"].data.fill_(-0.5)
    penalty = mask_penalty(0.1)(model)
    assert penalty.item() == pytest.approx(0.1 * (2.8 + 8), rel=rounding(6 + 16 + 2, torch.float32))
    penalty.backward()
    once = rounding(1, torch.float32)
    assert masks["conv2"].grad.tolist() == pytest.approx([-0.1] * 16, rel=once)
    assert masks["conv1"].grad.tolist() == pytest.approx([0.1, -0.1, 0, 0.1, -0.1, 0.1], rel=once)
    proximal_step(2.0)(model, 0.1)
    wanted = torch.tensor([0.3, -0.05, 0.0, 0.8, -0.8, 0.0])
    torch.testing.assert_close(masks["conv1"].data, wanted, rtol=0,
                               atol=rounding(2, torch.float32))
    assert masks["conv1"].data[5] == 0


def small_task() -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures whose class is where the bright half lies, and their classes."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (256,), generator=generator)
    inputs = 0.6 * torch.randn(256, 1, 8, 8, generator=generator)
    for index, (rows, columns) in enumerate([(slice(4), slice(8)), (slice(4, 8), slice(8)),
                                             (slice(8), slice(4)), (slice(8), slice(4, 8))]):
        inputs[labels == index, :, rows, columns] += 1
    return inputs, labels


def small_net(norm: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    norms = [nn.BatchNorm2d(10)] if norm else []
    return nn.Sequential(
        nn.Conv2d(1, 10, 3, padding=1), *norms, nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(10, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 4))


def trainer(**settings):
    inputs, labels = small_task()
    return partial(FineTune, inputs=inputs, labels=labels, batch_size=32, optimizer="sgd",
                   learning_rate=0.05, **settings)


def accuracy(model: nn.Module) -> float:
    inputs, labels = small_task()
    with torch.no_grad():
        return float((model.eval()(inputs).argmax(1) == labels).double().mean())


@pytest.mark.parametrize("step", ["subgradient", "proximal"])
def test_training_drives_masks_towards_zero(step):
    model = small_net(norm=False)
    add_masks(model, small_task()[0][:1])
    hook = ({"penalty": mask_penalty(0.05)} if step == "subgradient"
            else {"after_step": proximal_step(0.5)})
    trainer(epochs=30, **hook)()(model, 0)
    values = np.concatenate(list(filter_scores(model, "mask").values()))
    assert (values < 0.05).sum() >= 4 and values.max() > 0.3
    if step == "proximal":
        assert (values == 0).sum() >= 4
    assert accuracy(model) > 0.9


# Folding


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("network", NETWORKS)
def test_folding_is_exact(network, scope):
    model, x = masked(network)
    zeroed = copy.deepcopy(model)
    report = fold_masks(model, x[:1], rate=0.4, scope=scope)
    for name, mask in filter_masks(zeroed).items():
        gone = np.setdiff1d(np.arange(len(mask)), report.layers[name].kept)
        kept = list(report.layers[name].kept)
        assert len(kept) >= 1
        if scope == "layer":
            assert len(kept) == int(len(mask) * 0.6)
            assert mask[gone].abs().max() <= mask[kept].abs().min()
        mask.data[gone] = 0
    assert not filter_masks(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x), zeroed(x), rtol=0, atol=1e-10)
    cost = measure(model, x[:1])
    assert (report.after.macs, report.after.parameters) == (cost.macs, cost.parameters)
    original = measure(NETWORKS[network][0]().double(), x[:1])
    assert report.before.macs == original.macs
    assert report.before.parameters == original.parameters, "masks are not counted"


@pytest.mark.parametrize("network", ["vgg16", "resnet20 A"])
def test_folding_gamma_drops_the_map_with_its_beta(network):
    model, x = masked(network, on="gamma")
    zeroed = copy.deepcopy(model)
    report = fold_masks(model, x[:1], rate=0.4)
    for layer in zeroed.modules():
        for name, kept in report.layers.items():
            if layer.__dict__.get("filter_mask_of") == name:
                gone = np.setdiff1d(np.arange(layer.num_features), kept.kept)
                layer.weight.data[gone] = layer.bias.data[gone] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(x), zeroed(x), rtol=0, atol=1e-10)
    assert not filter_masks(model)


@pytest.mark.parametrize("kind", ["macs", "parameters", "conv_macs", "rate"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_threshold_removes_what_the_target_removes(kind, scope):
    model, x = masked("alexnet")
    twin = copy.deepcopy(model)
    threshold = threshold_for(model, x[:1], **{kind: 0.5}, scope=scope)
    assert filter_masks(model), "finding a threshold changes nothing"
    by_threshold = fold_masks(model, x[:1], threshold=threshold)
    by_target = fold_masks(twin, x[:1], **{kind: 0.5}, scope=scope)
    assert by_threshold.layers == by_target.layers
    if kind != "rate":
        fraction = getattr(by_target.after, kind) / getattr(by_target.before, kind)
        assert 0.4 < fraction <= 0.5


def test_equal_masks_go_together_and_the_largest_of_a_layer_stays():
    model, x = LeNet5(), torch.zeros(1, 1, 28, 28)
    add_masks(model, x)
    filter_masks(model)["conv1"].data.copy_(torch.tensor([0.1, 0.2, 0.1, 0.3, -0.1, 0.2]))
    threshold = threshold_for(model, x, rate=0.1)       # two of 22, and one more that is equal
    assert 0.1 < threshold < 0.1001
    fold = copy.deepcopy(model)
    assert fold_masks(fold, x, threshold=threshold).layers["conv1"].kept == (1, 3, 5)
    assert fold_masks(model, x, threshold=2.0).layers["conv1"].kept == (3,)
    assert model.conv2.weight.shape[:2] == (1, 1)


def test_layers_without_a_mask_stay_whole_and_are_named():
    model, x = LeNet5(), torch.zeros(1, 1, 28, 28)
    add_masks(model, x, layers=["conv2"])
    report = fold_masks(model, x, rate=0.5)
    assert list(report.layers) == ["conv2"] and len(report.layers["conv2"].kept) == 8
    assert report.skipped == {"conv1": "has no filter mask"}


def test_weight_masks_and_filter_masks_are_not_mixed_up():
    model, x = LeNet5(), torch.zeros(1, 1, 28, 28)
    add_masks(model, x)
    prune(model, "magnitude", rates={"conv2": 0.5})
    with pytest.raises(ArgumentError, match="fold the filter masks first"):
        fold_masks(model, x, rate=0.5)


# The whole method


@pytest.mark.parametrize("on, step", [("mask", "subgradient"), ("mask", "proximal"),
                                      ("gamma", "subgradient")])
def test_pruning_with_masks_meets_the_budget_and_keeps_the_accuracy(on, step):
    model, x = small_net(), small_task()[0][:1]
    trainer(epochs=15)()(model, 0)
    before = accuracy(model)
    layers = ["0"] if on == "gamma" else None
    report = prune_with_masks(
        model.train(), x, train=trainer(epochs=10), strength=0.02, macs=0.3 if layers else 0.6,
        finetune=trainer(epochs=10)(), on=on, step=step, layers=layers)
    assert model.training
    assert report.macs_removed >= (0.3 if layers else 0.6)
    assert measure(model, x).macs == report.after.macs
    assert accuracy(model) > before - 0.05 > 0.85
    assert not filter_masks(model)
    assert report.choices["step"] == step and report.choices["strength"] == 0.02


def test_a_target_that_cannot_be_met_is_refused_before_the_training():
    def train(**hooks):
        def never(model: nn.Module, round: int) -> None:
            raise AssertionError("trained for a target that cannot be met")
        return never

    model, x = small_net(), small_task()[0][:1]
    names = list(model.state_dict())
    for settings, message in (({"macs": 0.999}, "cannot be met"), ({}, "give one of"),
                              ({"macs": 0.5, "strength": 0}, "strength"),
                              ({"macs": 0.5, "step": "half"}, "step must be")):
        with pytest.raises(ArgumentError, match=message):
            prune_with_masks(model, x, train=train, **{"strength": 0.1} | settings)
        assert list(model.state_dict()) == names


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(tmp_path):
    x = small_task()[0][:1]

    def run(folder, stop=None):
        calls = []

        def stopping(inner):
            def call(network: nn.Module, round: int) -> None:
                calls.append(round)
                inner(network, round)
                if len(calls) == stop:
                    raise KeyboardInterrupt
            return call

        model = small_net()
        report = prune_with_masks(
            model, x, train=lambda **hooks: stopping(trainer(epochs=2)(**hooks)), strength=0.05,
            parameters=0.3, finetune=stopping(trainer(epochs=2)()), checkpoint=folder)
        return model, report, len(calls)

    whole, wanted, _ = run(tmp_path / "whole")
    for stop, left in ((1, 2), (2, 1)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"{stop}", stop)
        model, report, calls = run(tmp_path / f"{stop}")
        assert calls == left, "finished stages are not trained again"
        assert report == wanted
        for name, value in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), (stop, name)
