"""VGG-16 for 32 x 32 inputs, with batch normalisation.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition",
arXiv 1409.1556, configuration D; for CIFAR-10 with one hidden linear layer of 512 as in Li et al.,
"Pruning filters for efficient ConvNets", arXiv 1608.08710.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["VGG16", "VGG16_PRUNED_A", "VGG16_WIDTHS"]

VGG16_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
"""Output channels of the thirteen convolutions."""

VGG16_PRUNED_A = (32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256)
"""Those of Li et al.'s configuration A: half of the first and of the last six."""

_POOL_AFTER = (1, 3, 6, 9, 12)


class VGG16(nn.Module):
    """Thirteen 3 x 3 convolutions and up to three linear layers.

    Forward: float32 (N, 3, 32, 32) to float32 logits (N, classes).

    widths     : output channels of the convolutions, thirteen numbers.
    hidden     : outputs of the linear layers before the last; (512,) gives 14.99 M parameters,
                 (4096, 4096) the three linear layers of the original.
    classes    : outputs of the last.
    batch_norm : after each convolution and hidden linear layer. The layers before a batch
                 normalisation have no bias of their own where it has one.

    Attributes: `features`, a Sequential, and `classifier`, a Sequential.
    """

    def __init__(
        self,
        widths: Sequence[int] = VGG16_WIDTHS,
        hidden: Sequence[int] = (512,),
        classes: int = 10,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != len(VGG16_WIDTHS):
            raise ValueError(f"widths must be {len(VGG16_WIDTHS)} numbers, not {len(widths)}")
        features: list[nn.Module] = []
        channels = 3
        for index, width in enumerate(widths):
            features.append(nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm))
            if batch_norm:
                features.append(nn.BatchNorm2d(width))
            features.append(nn.ReLU())
            if index in _POOL_AFTER:
                features.append(nn.MaxPool2d(2))
            channels = width
        classifier: list[nn.Module] = []
        for width in hidden:
            classifier.append(nn.Linear(channels, width, bias=not batch_norm))
            if batch_norm:
                classifier.append(nn.BatchNorm1d(width))
            classifier.append(nn.ReLU())
            channels = width
        classifier.append(nn.Linear(channels, classes))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of the images (N, 3, 32, 32)."""
        return self.classifier(torch.flatten(self.features(x), 1))
