"""SqueezeNet for 32 x 32 inputs.

Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360,
version 1.1, with what small pictures need: no stride in the first convolution, and 2 x 2 pooling.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Fire", "SqueezeNet"]

_FIRES = ((16, 64, False), (16, 64, True), (32, 128, False), (32, 128, True), (48, 192, False),
          (48, 192, False), (64, 256, False), (64, 256, False))
"""Channels between, of each of both convolutions, and whether a pool follows."""


class Fire(nn.Module):
    """A 1 x 1 convolution to few channels, then 1 x 1 and 3 x 3 ones side by side, concatenated."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 expanded, H, W)."""
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules and a 1 x 1 convolution, averaged.

    Forward: float32 (N, 3, 32, 32) to float32 logits (N, classes).

    classes : outputs; 1,000 give the published 1,235,496 parameters, 10 give 727,626.
    width   : factor on all channels.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        channels = round(64 * width)
        layers = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        for squeezed, expanded, pooled in _FIRES:
            layers.append(Fire(channels, round(squeezed * width), round(expanded * width)))
            channels = 2 * round(expanded * width)
            layers += [nn.MaxPool2d(2)] * pooled
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout()
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of the images (N, 3, 32, 32)."""
        x = self.dropout(self.features(x))
        return torch.relu(self.classifier(x)).mean((2, 3))
