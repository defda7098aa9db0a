"""A convolutional autoencoder that takes noise from pictures of 28 x 28: the one of TensorFlow's
tutorial (tensorflow.org, "Intro to autoencoders"), which halves sides by strides."""

from __future__ import annotations

from torch import nn

__all__ = ["ConvAutoencoder"]


class ConvAutoencoder(nn.Sequential):
    """Two convolutions of stride 2, two transposed ones, and one more; 3,217 parameters.

    Forward: float32 (N, 1, H, W), sides multiples of 4, to the same restored, in [0, 1].

    wide, narrow : channels of the outer and of the inner maps.
    """

    def __init__(self, wide: int = 16, narrow: int = 8) -> None:
        super().__init__(
            nn.Conv2d(1, wide, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(wide, narrow, 3, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(narrow, narrow, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(narrow, wide, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.Conv2d(wide, 1, 3, padding=1), nn.Sigmoid())
