"""MobileNetV2: Sandler et al., "Inverted residuals and linear bottlenecks", arXiv 1801.04381."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["InvertedResidual", "MobileNetV2"]

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
          (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels at width 1, blocks and the first one's stride; table 2."""


class InvertedResidual(nn.Module):
    """A 1 x 1 convolution to more channels, a depthwise one, and one back; added where it can be.

    expansion : channels inside are so many times those of the input.
    """

    def __init__(self, channels: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        widened = _normalised(channels, inner, 1) if expansion != 1 else []
        self.body = nn.Sequential(*widened, *_normalised(inner, inner, 3, stride, inner),
                                  *_normalised(inner, outputs, 1)[:-1])
        self.added = stride == 1 and channels == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        return x + self.body(x) if self.added else self.body(x)


class MobileNetV2(nn.Module):
    """A convolution, seventeen inverted residuals, a wide 1 x 1 convolution, average, linear.

    Forward: float32 (N, 3, H, W), sides multiples of 32, to float32 logits (N, classes).

    width   : factor on channels, which are rounded to multiples of 8; not on the last convolution's
              1,280 where it is below 1.
    classes : outputs; 1,000 of ImageNet give 1.68 M parameters at width 0.35.
    """

    def __init__(self, width: float = 0.35, classes: int = 1000) -> None:
        super().__init__()
        channels = _eights(32 * width)
        layers = _normalised(3, channels, 3, 2)
        for expansion, wide, blocks, stride in STAGES:
            outputs = _eights(wide * width)
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, 1 if block else stride,
                                               expansion))
                channels = outputs
        last = _eights(1280 * max(width, 1.0))
        self.features = nn.Sequential(*layers, *_normalised(channels, last, 1))
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of the images (N, 3, H, W)."""
        return self.classifier(self.features(x).mean((2, 3)))


def _normalised(channels: int, outputs: int, kernel: int, stride: int = 1,
                groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU6()]


def _eights(channels: float) -> int:
    """Return the nearest multiple of 8 that is not less by more than a tenth, 8 at least."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 * (rounded < 0.9 * channels)
