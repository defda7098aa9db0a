"""What is asked of a network before filters go, and what it keeps when they do."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from celosia.compress.filters.prune import prune_filters
from celosia_spec.errors import ArgumentError
from filter_networks import Conv, Depthwise, Net, lively, mobile, sequence


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
