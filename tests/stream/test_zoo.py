"""A small network of each family on the golden model and the machine of words: the same bits."""

import numpy as np
import pytest
import torch

from celosia import models
from celosia.compiler import Compiler
from celosia_spec.isa.array import MAIN_WORDS_MAX, Array
from stream.compared import compare

ARRAY = Array(clamp=True, main_words=MAIN_WORDS_MAX)
NETWORKS = {
    "DS-CNN": (lambda: models.DSCNN(channels=8, blocks=1), (1, 49, 10)),
    "MobileNetV1": (lambda: models.MobileNetV1(width=0.125), (3, 32, 32)),
    "MobileNetV2": (lambda: models.MobileNetV2(width=0.05, classes=4), (3, 32, 32)),
    "SqueezeNet": (lambda: models.SqueezeNet(width=0.125), (3, 16, 16)),
    "U-Net": (lambda: models.UNet(width=2, depth=2), (1, 16, 16)),
    "tiny YOLO": (lambda: models.TinyYOLO(width=0.0625, classes=1), (3, 32, 32)),
    "wakeword": (models.Wakeword, (40, 30, 1)),
    "autoencoder": (lambda: models.FCAutoencoder(inputs=64), (64,)),
    "convolutional autoencoder": (lambda: models.ConvAutoencoder(wide=4), (1, 12, 12)),
    "ECG": (lambda: models.ECGNet(channels=8), (1, 187)),
    "LeNet-5, padded": (lambda: models.LeNet5(padding=2), (1, 28, 28)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_is_the_machine_of_words(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, compiler = make().eval(), Compiler(target="icebreaker")
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    graph = compiler.quantised(compiler.graph(network, (1, *shape)), None)
    compare(graph, ARRAY, x)
