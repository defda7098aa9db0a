"""U-Net: Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image
segmentation", MICCAI 2015, with padded convolutions, so that no map is cropped."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["UNet"]


class UNet(nn.Module):
    """Pairs of 3 x 3 convolutions, ``depth`` times a pool and as often up again beside the skip.

    Forward: float32 (N, channels, H, W), sides multiples of 2^depth, to float32 (N, classes, H, W).

    width : channels of the first pair; each pool doubles them. 64 gives the published network,
            31.03 M parameters.
    """

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 64,
                 depth: int = 4) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(_pair(before, behind) for before, behind in
                                  zip([channels, *widths], widths, strict=False))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * wide, wide, 2, stride=2)
                                     for wide in reversed(widths[:-1]))
        self.up = nn.ModuleList(_pair(2 * wide, wide) for wide in reversed(widths[:-1]))
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of all classes at each place, (N, classes, H, W)."""
        first, *others = self.down
        skips = [first(x)]
        for pair in others:
            skips.append(pair(self.pool(skips[-1])))
        x = skips.pop()
        for enlarge, pair in zip(self.enlarge, self.up, strict=True):
            x = pair(torch.cat([skips.pop(), enlarge(x)], 1))
        return self.last(x)


def _pair(channels: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU())
