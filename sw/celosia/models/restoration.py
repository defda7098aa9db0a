"""Networks that mend pictures: DnCNN (noise) and VDSR (resolution). Both predict the error.

Parameter names are those of the usual PyTorch ports, so weights trained elsewhere load.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["VDSR", "DnCNN"]


class DnCNN(nn.Module):
    """Zhang et al., "Beyond a Gaussian denoiser", IEEE TIP 26(7), 2017: 17 layers, 0.556 M weights.

    Forward: noisy grey levels (N, 1, H, W) in [0, 1] to the predicted noise; subtract it.
    """

    def __init__(self, layers: int = 17, channels: int = 64) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.ReLU()]
        for _ in range(layers - 2):
            parts += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        parts.append(nn.Conv2d(channels, 1, 3, padding=1, bias=False))
        self.dncnn = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the noise in x, both (N, 1, H, W)."""
        return self.dncnn(x)


class _ConvReLU(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x))


class VDSR(nn.Module):
    """Kim et al., "Accurate image super-resolution using very deep convolutional networks", 2016.

    Forward: luma (N, 1, H, W) in [0, 1], enlarged by bicubic interpolation, to the sharpened luma.
    20 layers, 0.665 M weights; the sum with the input is part of the network.
    """

    def __init__(self, layers: int = 20, channels: int = 64) -> None:
        super().__init__()
        self.input = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.residual_layer = nn.Sequential(*(_ConvReLU(channels) for _ in range(layers - 2)))
        self.output = nn.Conv2d(channels, 1, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sharpened luma, (N, 1, H, W)."""
        return x + self.output(self.residual_layer(torch.relu(self.input(x))))
