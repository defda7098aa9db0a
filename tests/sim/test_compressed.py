"""Networks compressed by every method, on the machine: every stored bit and every cycle.

Nothing is retrained: what counts are the shapes, the densities and the kinds of layers.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import pytest

from celosia.verify import verify

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import celosia  # noqa: E402
from celosia.compress.combined import prune_combined  # noqa: E402
from celosia.compress.filters.mask_layer import add_masks, fold_masks  # noqa: E402
from celosia.compress.filters.prune import prune_filters  # noqa: E402
from celosia.compress.fusion.fuse import fuse  # noqa: E402
from celosia.compress.lowrank.svd import svd  # noqa: E402
from celosia.compress.lowrank.tucker import tucker2  # noqa: E402
from celosia.compress.masks.weights import make_permanent  # noqa: E402
from celosia.compress.weights.cycles import prune_to_cycles  # noqa: E402
from celosia.compress.weights.prune import prune  # noqa: E402
from celosia.datasets import load_fashion_mnist, preprocess  # noqa: E402
from celosia.models import load_lenet5  # noqa: E402
from celosia.models.resnet import BasicBlock  # noqa: E402

IMAGES = 2
LENET5_MACS = 281_640
"""Of the dense network."""


@functools.cache
def pictures() -> np.ndarray:
    return preprocess(load_fashion_mnist("test")[0][:100])


def check(model: nn.Module, x: np.ndarray, target: str, exponents: str) -> celosia.Program:
    """Assert that each tensor and output is the golden model's, in the predicted cycles."""
    program = celosia.compile(model, x[:1], target=target, exponents=exponents,
                              calibration=x if exponents == "static" else None)
    found = verify(program, x[:IMAGES], "verilator")
    assert found.first_mismatch is None and found.mismatches == 0
    assert set(found.tensors) >= set(program.graph.tensors) - {program.graph.input}
    assert found.cycles.tolist() == [program.predicted_cycles] * IMAGES
    return program


def no_training(*_: object) -> None:
    """In the place of a trainer."""


# LeNet-5


def weights_by(method: str, **options: object) -> Callable[[nn.Module], None]:
    def compress(model: nn.Module) -> None:
        prune(model, method, inputs=pictures(), rates={"conv2": 0.5, "fc1": 0.9, "fc2": 0.8},
              **options)
    return compress


def filters(model: nn.Module) -> None:
    prune_filters(model, pictures()[:1], "std", rate=0.4)


def mask_layer(model: nn.Module) -> None:
    add_masks(model, pictures()[:1])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mask"):
                parameter.copy_(torch.linspace(1.3, 0.1, parameter.numel()))
    fold_masks(model, pictures()[:1], rate=0.4)


def combined(model: nn.Module) -> None:
    prune_combined(model, pictures()[:1], inputs=pictures(), rates=0.8, conv_macs=0.4,
                   strength=0.01, train=lambda **_: no_training)


def fused(model: nn.Module) -> nn.Module:
    """Convolutions take the strides of the pools behind them over."""
    return fuse(model, pictures()[:1], finetune=no_training).model


def svd_channel(model: nn.Module) -> None:
    model.conv1, model.conv2 = svd(model.conv1, 3), svd(model.conv2, 8)
    model.fc1, model.fc2 = svd(model.fc1, 20), svd(model.fc2, 15)


def svd_spatial(model: nn.Module) -> None:
    """Kernels of one column, then of one row."""
    model.conv1 = svd(model.conv1, 2, scheme="spatial")
    model.conv2 = svd(model.conv2, 10, scheme="spatial")
    model.fc1 = svd(model.fc1, 20)
    prune(model, "magnitude", rates={"fc2": 0.7})


def tucker(model: nn.Module) -> None:
    model.conv2 = tucker2(model.conv2, (8, 4))
    prune(model, "magnitude", rates={"conv2.1": 0.3, "fc1": 0.8, "fc2": 0.7})


def cycle_aware(model: nn.Module) -> None:
    prune_to_cycles(model, example_input=pictures()[:1], budget=9000)


LENET5 = {
    "magnitude": (weights_by("magnitude"), "icebreaker"),
    "correlation": (weights_by("correlation"), "icebreaker"),
    "AE-LIP": (weights_by("ae-lip", rounds=2, order="forward"), "icebreaker"),
    "filters": (filters, "icebreaker"),
    "mask layer": (mask_layer, "icebreaker"),
    "combined": (combined, "icebreaker"),
    "fused": (fused, "icebreaker"),
    "cycle-aware": (cycle_aware, "icebreaker"),
    "SVD, channel": (svd_channel, "ecp5-25f"),
    "SVD, spatial": (svd_spatial, "ecp5-25f"),
    "Tucker": (tucker, "ecp5-25f"),
}
"""What is done to the network, and a target that takes the result."""


@functools.cache
def lenet5(name: str) -> nn.Module:
    compress, _ = LENET5[name]
    model = load_lenet5()
    return (compress(model) or model).eval()


@pytest.mark.parametrize("name", LENET5)
def test_lenet5(name):
    model = copy.deepcopy(lenet5(name))
    make_permanent(model)
    program = check(model, pictures(), LENET5[name][1], "dynamic")
    assert sum(layer.macs for layer in program.layers) < LENET5_MACS


@pytest.mark.parametrize("name", ["fused", "cycle-aware", "SVD, spatial", "Tucker"])
def test_lenet5_static(name):
    check(lenet5(name), pictures(), LENET5[name][1], "static")


# A residual network with shortcuts of both kinds: none, and 1 x 1 convolutions


def residual() -> nn.Sequential:
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        BasicBlock(8, 8, 1, 8, "B"), BasicBlock(8, 16, 2, 16, "B"),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def colours(count: int = 20) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, 8, 8)).astype(np.float32)


def residual_factorised(model: nn.Module) -> None:
    model[3].conv1 = tucker2(model[3].conv1, (5, 4))
    model[3].conv2 = svd(model[3].conv2, 4)
    model[4].conv1 = svd(model[4].conv1, 6, scheme="spatial")


def residual_cycles(model: nn.Module) -> None:
    prune_to_cycles(model, example_input=colours(1), budget=6000, target="ecp5-25f")


RESIDUAL = {
    "magnitude": lambda model: prune(model, "magnitude", rates=0.7),
    "filters": lambda model: prune_filters(model, colours(1), "std", rate=0.4, coupled="prune"),
    "factorised": residual_factorised,
    "cycle-aware": residual_cycles,
}


@functools.cache
def residual_by(name: str) -> nn.Module:
    model = residual()
    RESIDUAL[name](model)
    return model


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_network(name, exponents):
    check(residual_by(name), colours(), "ecp5-25f", exponents)
