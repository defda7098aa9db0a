"""MLPerf Tiny's networks: Banbury et al., "MLPerf Tiny benchmark", arXiv 2106.07597.

`DSCNN`, `MobileNetV1` and `Wakeword` have their layers under numbers that leave padding out, as
part of a convolution: so mlcommons/tiny's trained weights load. The fifth network of the benchmark
is `ResNet(8, "B")`, but for biases of convolutions that batch normalisation follows, and for none
of it in shortcuts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise

from torch import nn

__all__ = ["DSCNN", "FCAutoencoder", "MobileNetV1", "Wakeword"]

EPSILON = 1e-3
"""Keras' own, of batch normalisation."""


class DSCNN(nn.Sequential):
    """Keyword spotting: a convolution and four depthwise separable ones; 22,604 parameters.

    Zhang et al., "Hello edge: keyword spotting on microcontrollers", arXiv 1711.07128. Batch
    normalisation is folded into the convolutions, as it is in the benchmark's weights.

    Forward: ten cepstral coefficients over time, float32 (N, 1, 49, 10), to float32 logits
    (N, classes).

    classes  : outputs.   channels : of all maps.   blocks : depthwise separable convolutions.
    """

    def __init__(self, classes: int = 12, channels: int = 64, blocks: int = 4) -> None:
        layers: list[nn.Module] = [nn.ZeroPad2d((1, 1, 4, 5)),
                                   nn.Conv2d(1, channels, (10, 4), stride=2), nn.ReLU()]
        for _ in range(blocks):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.ReLU(),
                       nn.Conv2d(channels, channels, 1), nn.ReLU()]
        super().__init__(_numbered([*layers, nn.AvgPool2d((25, 5)), nn.Flatten(),
                                    nn.Linear(channels, classes)]))


class MobileNetV1(nn.Sequential):
    """Person detection at a quarter of the width; 216,322 parameters.

    Howard et al., "MobileNets", arXiv 1704.04861, table 1; convolutions have biases, as the
    benchmark's have.

    Forward: float32 (N, 3, H, W), sides multiples of 32, 96 x 96 in the benchmark, to float32
    logits (N, classes).

    width   : factor on all channels.   classes : outputs.
    """

    STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5,
              (1024, 2), (1024, 1))
    """Channels at width 1 and stride of each depthwise separable convolution."""

    def __init__(self, width: float = 0.25, classes: int = 2) -> None:
        channels = round(32 * width)
        layers = _normalised(3, channels, 3, 2, 1)
        for wide, stride in self.STAGES:
            outputs = round(wide * width)
            layers += _normalised(channels, channels, 3, stride, channels)
            layers += _normalised(channels, outputs, 1, 1, 1)
            channels = outputs
        super().__init__(_numbered([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                    nn.Linear(channels, classes)]))


class Wakeword(nn.Sequential):
    """Streaming wakeword: four depthwise separable convolutions over time; 46,875 parameters.

    Forward: 40 features of 30 moments, float32 (N, 40, 30, 1), to float32 logits (N, classes).
    """

    STAGES = ((3, 128), (5, 128), (10, 128), (15, 32))
    """Moments that each convolution sees, and its output channels."""

    def __init__(self, classes: int = 3) -> None:
        channels = 40
        layers: list[nn.Module] = []
        for moments, outputs in self.STAGES:
            layers += [nn.Conv2d(channels, channels, (moments, 1), groups=channels, bias=False),
                       nn.Conv2d(channels, outputs, 1, bias=False),
                       nn.BatchNorm2d(outputs, eps=EPSILON), nn.ReLU()]
            channels = outputs
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels, classes))


class FCAutoencoder(nn.Sequential):
    """Anomaly detection: nine hidden linear layers, the middle one narrow; 267,928 parameters.

    Forward: five spectra of 128 bands, float32 (N, 640), to the same restored, (N, 640).

    inputs, hidden, narrow : features of input and output, of hidden layers, of the middle one.
    """

    def __init__(self, inputs: int = 640, hidden: int = 128, narrow: int = 8) -> None:
        sizes = (inputs, *(hidden,) * 4, narrow, *(hidden,) * 4)
        layers: list[nn.Module] = []
        for before, behind in pairwise(sizes):
            layers += [nn.Linear(before, behind), nn.BatchNorm1d(behind, eps=EPSILON), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden, inputs))


def _normalised(channels: int, outputs: int, kernel: int, stride: int,
                groups: int) -> list[nn.Module]:
    """Return a convolution padded as TensorFlow does where sides are even, normalised, and ReLU."""
    pad = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    return [*pad, nn.Conv2d(channels, outputs, kernel, stride, 0 if pad else kernel // 2,
                            groups=groups),
            nn.BatchNorm2d(outputs, eps=EPSILON), nn.ReLU()]


def _numbered(layers: Iterable[nn.Module]) -> OrderedDict[str, nn.Module]:
    """Return layers under their numbers, paddings under that of what follows them, as "pad9"."""
    named: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for layer in layers:
        padding = isinstance(layer, nn.ZeroPad2d)
        named[f"pad{number}" if padding else str(number)] = layer
        number += not padding
    return named
