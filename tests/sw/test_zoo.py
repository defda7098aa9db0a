"""The networks that are known by name: their published sizes, and what the commands say of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia import zoo
from celosia.cli import app
from celosia.cli.common import find_model, load_weights
from celosia.compiler import Compiler
from celosia_spec.errors import CelosiaError

MILLION = 1_000_000

PUBLISHED = {       # parameters, multiply-accumulates; how many of them stand behind a point
    "LeNet-5, 32 x 32": ("LeNet5", {"padding": 2}, (1, 28, 28), 61_706, 416_520, 0),
    "LeNet-300-100": ("LeNet300", {}, (1, 28, 28), 266_610, 266_200, 0),
    "SqueezeNet 1.1": ("SqueezeNet", {"classes": 1000}, (3, 32, 32), 1_235_496, None, 0),
    "U-Net": ("UNet", {"classes": 1}, (1, 64, 64), 31_030_593, None, 0),
    "ConvAutoencoder": ("ConvAutoencoder", {}, (1, 28, 28), 3_217, None, 0),
    "MobileNet-224": ("MobileNetV1", {"width": 1.0, "classes": 1000}, (3, 224, 224),
                      4.2, 569, 1),
    "0.25 MobileNet-224": ("MobileNetV1", {"classes": 1000}, (3, 224, 224), 0.5, 41, 1),
}
"""Maker, options, input, and the figures, in millions where they are rounded."""

WITH_STATISTICS = {     # Keras and Darknet count the means and deviations of normalisations too
    "FCAutoencoder": ((640,), 269_992), "MobileNetV1": ((3, 96, 96), 221_794),
    "TinyYOLO": ((3, 416, 416), 15_867_885),
}

MOBILENET_V2 = {(0.35, 96): (1.66, 11), (1.0, 224): (3.47, 300), (1.4, 224): (6.06, 582)}
"""Width and side: parameters without those of normalisations, and multiply-accumulates, both in
millions and cut off behind what is told (tensorflow/models, research/slim/nets/mobilenet)."""

OUTPUTS = {"mobilenet-v1": (2,), "mobilenet-v2": (1000,), "u-net": (2, 64, 64),
           "tiny-yolo": (30, 2, 2), "ds-cnn": (12,), "wakeword": (3,), "autoencoder": (640,),
           "conv-autoencoder": (1, 28, 28), "ecg": (5,), "dncnn-17": (1, 40, 40),
           "vdsr-20": (1, 41, 41)}
"""Of one input; of all others ten classes."""

SMALL = ("lenet-300-100", "ds-cnn", "wakeword", "autoencoder", "conv-autoencoder", "ecg")
"""What compiles for the iCEBreaker in a second or two."""


def entry(maker: str, shape: tuple[int, ...], **options: object) -> zoo.Entry:
    return zoo.Entry(name="net", about="", maker=maker, shape=shape, options=options)


def invoke(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == status, result.output
    return result


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    maker, options, shape, parameters, macs, digits = PUBLISHED[name]
    found = entry(maker, shape, **options).cost()
    if digits:
        found = round(found[0] / MILLION, digits), round(found[1] / MILLION)
    assert found[0] == parameters
    assert macs is None or found[1] == macs


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_published_sizes_with_statistics(name):
    shape, published = WITH_STATISTICS[name]
    network = entry(name, shape).make()
    assert published == sum(tensor.numel() for key, tensor in network.state_dict().items()
                            if "num_batches" not in key)


@pytest.mark.parametrize(("width", "side"), MOBILENET_V2)
def test_published_sizes_of_mobilenet_v2(width, side):
    own = entry("MobileNetV2", (3, side, side), width=width)
    norms = sum(tensor.numel() for part in own.make().modules()
                if isinstance(part, nn.BatchNorm2d) for tensor in part.parameters())
    parameters, macs = own.cost()
    assert (math.floor((parameters - norms) / MILLION * 100) / 100,
            macs // MILLION) == MOBILENET_V2[width, side]


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_outputs(name):
    own = zoo.NETWORKS[name]
    network = own.make().to("meta")
    assert not network.training
    found = network(torch.empty(3, *own.shape, device="meta"))
    assert found.shape == (3, *OUTPUTS.get(name, (10,)))


def test_weights_are_the_same_each_time():
    before = torch.random.get_rng_state()
    one, other = (zoo.NETWORKS["ds-cnn"].make().state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_cost_counts_layers_as_they_are():
    """Against counts by hand, of every kind of layer that the networks have."""
    assert zoo.NETWORKS["lenet5"].cost() == (44_426, 281_640)
    assert zoo.NETWORKS["resnet-20"].cost() == (269_722, 40_551_040)
    assert zoo.NETWORKS["ds-cnn"].cost() == (22_604, 125 * 64 * (40 + 4 * (9 + 64)) + 64 * 12)
    assert entry("ConvAutoencoder", (1, 28, 28)).cost()[1] == (
        14 * 14 * 9 * 16 + 7 * 7 * 9 * 16 * 8 + 7 * 7 * 9 * 8 * 8 + 14 * 14 * 9 * 8 * 16
        + 28 * 28 * 9 * 16)
    lengths = (187, 92, 44, 20, 8)
    assert zoo.NETWORKS["ecg"].cost()[1] == (
        187 * 5 * 32 + 2 * sum(lengths) * 5 * 32 * 32 + 64 * 32 + 32 * 32 + 32 * 5)


@pytest.mark.parametrize("name", SMALL)
def test_small_ones_compile(name):
    own = zoo.NETWORKS[name]
    program = celosia.compile(own.make(), (1, *own.shape), target="icebreaker")
    assert program.remarks[0] == zoo.UNTRAINED
    assert sum(layer.macs for layer in program.layers) > 0


def test_sums_of_tensors_are_refused_where_there_are_none():
    """ResNets and MobileNetV2, on the HX8K."""
    for name in ("resnet-8", "resnet-8-b", "mobilenet-v2"):
        own, compiler = zoo.NETWORKS[name], Compiler(target="hx8k-b-evn")
        graph = compiler.quantised(compiler.graph(own.make(), (1, *own.shape)), None)
        with pytest.raises(CelosiaError, match="it adds tensors, and the array has no residual"):
            compiler.fitting(graph)


def test_the_command_lists_all_of_them():
    listed = json.loads(invoke("models", "--json").stdout)["models"]
    assert [one["name"] for one in listed] == list(zoo.NETWORKS)
    own = next(one for one in listed if one["name"] == "ds-cnn")
    assert own == {"name": "ds-cnn", "what": "keyword spotting, MLPerf Tiny",
                   "input_shape": [1, 49, 10], "trained": False, "parameters": 22_604,
                   "macs": 2_656_768}
    shown = invoke("models").stdout
    for one in listed:
        line = next(line for line in shown.splitlines() if line.split()[1:2] == [one["name"]])
        assert f"{one['parameters']:,}" in line and f"{one['macs']:,}" in line
        assert ("trained" if one["trained"] else "random") in line
    assert {one["name"] for one in listed if one["trained"]} == {"lenet5", "lenet5-pruned"}


def test_commands_take_names_and_say_that_weights_are_random(tmp_path: Path):
    path = tmp_path / "net.celo"
    shown = invoke("compile", "conv-autoencoder", "-o", path).stdout
    assert zoo.UNTRAINED in shown
    assert zoo.UNTRAINED in celosia.load(path).remarks
    checked = invoke("check", "conv-autoencoder", "--target", "icebreaker", "--json").stdout
    assert zoo.UNTRAINED in json.loads(checked)["targets"][0]["remarks"]
    x = tmp_path / "x.npy"
    np.save(x, np.random.default_rng(0).random((2, 1, 28, 28), np.float32))
    measured = invoke("check", "conv-autoencoder", "--target", "icebreaker", "--bits", "8/8",
                      "--calibration", x, "--json").stdout
    assert zoo.UNTRAINED in json.loads(measured)["remarks"]
    assert zoo.UNTRAINED in invoke("run", path, "--input", x).stderr
    assert zoo.UNTRAINED in invoke("explain", path).stderr
    assert zoo.UNTRAINED in invoke("compare", path).stderr


def test_given_weights_are_not_called_random(tmp_path: Path):
    """In a file as MLPerf Tiny's are here, without the counts of batches."""
    network = zoo.NETWORKS["wakeword"].make()
    tensors = {name: tensor + 0.01 for name, tensor in network.state_dict().items()
               if "num_batches" not in name}
    file = tmp_path / "trained.safetensors"
    save_file(tensors, file)
    shown = json.loads(invoke("compile", "wakeword", "--weights", file, "--json").stdout)
    assert zoo.UNTRAINED not in shown["remarks"]
    network, example = find_model("wakeword")
    load_weights(network, file)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in tensors.items())
    assert example.shape == (1, 40, 30, 1)
    del tensors["0.weight"]
    save_file(tensors, file)
    refused = invoke("compile", "wakeword", "--weights", file, status=1).stderr
    assert "does not fit the model: 0.weight missing" in refused


def test_what_is_nearly_a_name():
    assert "mobilenet-v1 or another name that `celosia models` lists" in invoke(
        "check", "mobilenet_v1", status=1).stderr
