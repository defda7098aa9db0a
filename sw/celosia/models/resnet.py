"""ResNets for 32 x 32 inputs: He et al., "Deep residual learning for image recognition", 4.2.

Parameter names are those of the usual PyTorch port (conv1, bn1, layer1.0.conv1, ..., linear), so
weights trained elsewhere load.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

__all__ = ["BasicBlock", "ResNet"]

STAGES = (16, 32, 64)
"""Channels of the three stages."""


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them.

    inner    : output channels of the first convolution.
    shortcut : "A" pads missing channels with zeros and has no parameters; "B" is a 1 x 1
               convolution with batch normalisation where shapes differ.
    """

    def __init__(
        self, channels: int, outputs: int, stride: int, inner: int, shortcut: str
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - channels
        self.shortcut = nn.Sequential()
        if shortcut == "B" and (stride != 1 or self.missing):
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )
            self.missing = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.missing:
            x = x[:, :, :: self.stride, :: self.stride]
            before = self.missing // 2
            x = functional.pad(x, (0, 0, 0, 0, before, self.missing - before))
        return torch.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """6 n + 2 layers: a convolution, three stages of n blocks, average pool, linear.

    Forward: float32 (N, 3, 32, 32) to float32 logits (N, classes).

    depth    : 8, 14, 20, 32, 44, 56, 110, ...
    shortcut : "A" (no parameters; 20 layers have 0.270 M) or "B" (1 x 1 convolutions).
    inner    : {block index: output channels of its first convolution} where they differ from the
               stage's; blocks count from 0 through all stages.
    """

    def __init__(
        self,
        depth: int = 20,
        shortcut: str = "A",
        classes: int = 10,
        inner: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6 n + 2, as 8, 20, 56 or 110, not {depth}")
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut must be 'A' or 'B', not {shortcut!r}")
        blocks = (depth - 2) // 6
        inner = inner or {}
        self.conv1 = nn.Conv2d(3, STAGES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        channels = STAGES[0]
        for stage, outputs in enumerate(STAGES):
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                width = inner.get(stage * blocks + block, outputs)
                layers.append(BasicBlock(channels, outputs, stride, width, shortcut))
                channels = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of the images (N, 3, 32, 32)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))
