"""Tiny YOLO: Redmon, Farhadi, "YOLO9000: better, faster, stronger", CVPR 2017, the small network of
its release (yolov2-tiny), without the pool of stride 1, which changes no size."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["TinyYOLO"]

_WIDTHS = (16, 32, 64, 128, 256, 512)


class TinyYOLO(nn.Module):
    """Eight 3 x 3 convolutions with batch normalisation, five pools, and a 1 x 1 head.

    Forward: float32 (N, 3, H, W), sides multiples of 32, to float32
    (N, anchors (5 + classes), H / 32, W / 32): place, size and certainty of each box and the logits
    of its classes, before the sigmoids that the host computes.

    width   : factor on all channels; 1 with 20 classes and 5 anchors has 15.86 M parameters.
    classes : of things that are found.   anchors : boxes at each place.
    """

    def __init__(self, width: float = 1.0, classes: int = 20, anchors: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for wide in _WIDTHS:
            layers += [*_normalised(channels, round(wide * width)), nn.MaxPool2d(2)]
            channels = round(wide * width)
        last = round(1024 * width)
        self.features = nn.Sequential(*layers[:-1], *_normalised(channels, last),
                                      *_normalised(last, last))
        self.head = nn.Conv2d(last, anchors * (5 + classes), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is found at each place, (N, anchors (5 + classes), H / 32, W / 32)."""
        return self.head(self.features(x))


def _normalised(channels: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.1)]
