"""Parameters, multiply-accumulates and weight bytes: published counts, by hand, the compiler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia.bands import plan
from celosia.bands.disassembly import layer_words
from celosia.bands.program import stream_program
from celosia.compress import prune
from celosia.compress.cost import measure
from celosia.frontend import import_model
from celosia.models import VGG16, AlexNet, DnCNN, LeNet5, ResNet
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_spec.errors import ArgumentError
from celosia_spec.isa.array import CONTROL_BITS, Array
from celosia_spec.isa.controls import HEAD
from celosia_spec.isa.words import WEIGHT

PUBLISHED = {
    "LeNet-5": (LeNet5, (1, 28, 28), 44_426, 281_640),
    "AlexNet": (AlexNet, (3, 32, 32), 23_272_266, 62_742_528),
    "VGG-16": (VGG16, (3, 32, 32), 14_987_210, 313_463_808),
    "ResNet-20 A": (lambda: ResNet(20), (3, 32, 32), 269_722, 40_551_040),
    "ResNet-110 A": (lambda: ResNet(110), (3, 32, 32), 1_727_962, 252_887_680),
    "DnCNN": (DnCNN, (1, 40, 40), 556_032, 886_579_200),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    make, shape, parameters, macs = PUBLISHED[name]
    cost = measure(make(), torch.zeros(1, *shape))
    assert (cost.parameters, cost.macs) == (parameters, macs)


def net() -> nn.Sequential:
    """Grouped, strided and rectangular convolutions, a factorised one, and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(),
        nn.Sequential(nn.Conv2d(6, 2, (3, 1), bias=False), nn.Conv2d(2, 5, (1, 3))),
        nn.Flatten(), nn.Linear(5 * 3 * 5, 7))


def test_every_kind_of_layer_by_hand():
    cost = measure(net(), np.zeros((1, 3, 11, 15), np.float32))
    weights = {"0": 108, "3": 108, "5.0": 36, "5.1": 30, "7": 525}
    positions = {"0": 5 * 7, "3": 5 * 7, "5.0": 3 * 7, "5.1": 3 * 5, "7": 1}
    assert {name: layer.weights for name, layer in cost.layers.items()} == weights
    assert {name: layer.positions for name, layer in cost.layers.items()} == positions
    assert cost.macs == sum(weights[name] * positions[name] for name in weights)
    assert cost.parameters == 108 + 8 + 114 + 36 + 35 + 532
    assert cost.dense_bytes == 4 * (108 + 114 + 36 + 35 + 532)


def test_masks_count_as_zeros():
    model = net()
    report = prune(model, "magnitude", rates={"0": 0.5, "7": 0.8})
    cost = measure(model, torch.zeros(1, 3, 11, 15))
    for name, layer in cost.layers.items():
        assert layer.nonzeros == report.layers[name].kept
        assert layer.useful_macs == layer.nonzeros * layer.positions
    assert cost.parameters == measure(net(), torch.zeros(1, 3, 11, 15)).parameters
    assert cost.nonzero_parameters == cost.parameters - 54 - 420
    assert cost.density == (807 - 54 - 420) / 807
    assert cost.compression == cost.dense_bytes / cost.weight_bytes


def test_long_steps_take_further_words():
    """Gaps 255, 256 and 511 in one row: one, two and three words; then an empty row."""
    model = nn.Linear(2000, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, [0, 255, 511, 1022]] = 1
    cost = measure(model, torch.zeros(1, 2000))
    assert cost.weight_bytes == (1 + 1 + 2 + 3) * 2 + 2 * (6 + 2)
    assert measure(model, torch.zeros(1, 2000), weight_bits=5).weight_bytes == -(-7 * 13 // 8) + 16


def halved() -> nn.Sequential:
    """The same, half of the weights zeros, and none so small that it becomes one."""
    model = net()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                keep = torch.rand(layer.weight.shape) < 0.5
                layer.weight.copy_((0.5 + torch.rand(layer.weight.shape)) * keep)
    return model


def test_bytes_are_those_of_a_stream_with_one_row_group(monkeypatch):
    """Weights, heads and batch words of the stream, read back."""
    ways_of = plan.ways_of
    monkeypatch.setattr(plan, "ways_of", lambda graph, node, array, log2, apart: (
        () if log2 else ways_of(graph, node, array, log2, apart)))
    model = halved()
    cost = measure(model, torch.zeros(1, 3, 11, 15))
    graph = optimise(import_model(model.eval(), np.zeros((1, 3, 11, 15), np.float32)))
    program = stream_program(quantise(graph, acc_bits=32), Array(acc_bits=32))
    for found, words in zip(cost.layers.values(), layer_words(program), strict=True):
        assert words.groups == 1 and not any(batch.fields["dense"] for batch in words.kept)
        assert found.nonzeros == sum(batch.weights for batch in words.kept)
        heads = [len(HEAD.words) for batch in words.kept for head in batch.heads if head["real"]]
        bits = (sum(batch.fields["steps"] for batch in words.kept) * WEIGHT.bits
                + (sum(heads) + len(words.kept)) * CONTROL_BITS)
        assert found.weight_bytes == bits // 8


def test_products_are_the_compilers():
    model = halved()
    program = celosia.compile(model.eval(), np.zeros((1, 3, 11, 15), np.float32))
    for found, layer in zip(measure(model, torch.zeros(1, 3, 11, 15)).layers.values(),
                            program.layers, strict=True):
        assert (found.nonzeros, found.useful_macs) == (layer.nonzeros, layer.macs)


def test_a_layer_called_twice_counts_twice():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    cost = measure(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 2, 4, 5))
    assert cost.macs == 2 * 36 * 20
    assert cost.weights == 36


def test_leaves_modes_and_hooks_alone():
    model = net()
    model.train()
    model[1].eval()
    statistics = model[1].running_mean.clone()
    measure(model, torch.ones(1, 3, 11, 15))
    assert model.training
    assert model[0].training
    assert not model[1].training
    assert torch.equal(model[1].running_mean, statistics)
    with pytest.raises(ArgumentError, match="does not run"):
        measure(model, torch.zeros(1, 4, 11, 15))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_refusals():
    with pytest.raises(ArgumentError, match="nothing to count"):
        measure(nn.ReLU(), torch.zeros(1, 2))
    with pytest.raises(ArgumentError, match="'1' is a ConvTranspose2d"):
        measure(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 2)), torch.zeros(1, 2))


def test_a_weight_that_layers_share_counts_once_among_the_parameters():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
            self.b.weight = self.a.weight
            self.again = self.a

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x)))

    net = Net()
    with torch.no_grad():
        net.a.weight[:12] = 0
    cost = measure(net, torch.randn(1, 16))
    assert (cost.parameters, cost.nonzero_parameters) == (256, 64)
    assert (cost.macs, cost.useful_macs) == (512, 128)      # each layer multiplies its own


@pytest.mark.parametrize("x", [torch.zeros(1, 3), torch.zeros(1, 4, dtype=torch.int32)],
                         ids=["shape", "type"])
def test_an_example_that_the_network_does_not_take_is_refused_in_words(x):
    with pytest.raises(ArgumentError, match="^the network does not run on the example input of"):
        measure(nn.Sequential(nn.Linear(4, 2)), x)
