"""AlexNet for 32 x 32 inputs.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
NIPS 2012, with the kernels that small pictures need: 3 x 3 throughout, a stride of 2 in the first
convolution, and 2 x 2 pooling.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["AlexNet"]

_WIDTHS = (64, 192, 384, 256, 256)


class AlexNet(nn.Module):
    """Five convolutions and three linear layers; 23.27 M parameters at full width.

    Forward: float32 (N, 3, 32, 32) to float32 logits (N, classes).

    width   : factor on the channels of the convolutions, (64, 192, 384, 256, 256) at 1.
    hidden  : outputs of the first two linear layers.
    classes : outputs of the last.
    dropout : share of a linear layer's inputs that training sets to zero.

    Attributes: `features`, a Sequential of the convolutions, and `fc1`, `fc2`, `fc3`.
    """

    def __init__(
        self, width: float = 1.0, hidden: int = 4096, classes: int = 10, dropout: float = 0.5
    ) -> None:
        super().__init__()
        w1, w2, w3, w4, w5 = (round(width * channels) for channels in _WIDTHS)
        self.features = nn.Sequential(
            nn.Conv2d(3, w1, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(w1, w2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(w2, w3, 3, padding=1), nn.ReLU(),
            nn.Conv2d(w3, w4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(w4, w5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(4 * w5, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of the images (N, 3, 32, 32)."""
        x = torch.flatten(self.features(x), 1)
        x = torch.relu(self.fc1(self.dropout(x)))
        x = torch.relu(self.fc2(self.dropout(x)))
        return self.fc3(x)
