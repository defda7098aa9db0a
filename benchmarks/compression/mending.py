"""Pictures for the networks that mend them, and the PSNR of what these make of them.

VDSR is judged on the luma of MATLAB's rgb2ycbcr, (16 + 65.481 R + 128.553 G + 24.966 B) / 255 for
R, G, B in [0, 1]. Pictures are cut to a multiple of the scale, made small and large again by
Pillow's BICUBIC on 32-bit floats, whose kernel (a = -0.5) widens when it makes a picture smaller,
as MATLAB's imresize does; nothing is rounded to 8 bits between.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from harness.pictures import experiment
from PIL import Image
from torch import nn

__all__ = ["Denoiser", "blurred_patches", "blurred_set5", "noisy_pictures", "patches", "psnr"]

Pair = tuple[torch.Tensor, torch.Tensor]

_LUMA = np.array([65.481, 128.553, 24.966]) / 255


class Denoiser(nn.Module):
    """Noisy pictures (N, 1, H, W) in, clean ones out, by a network that predicts the noise."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x less the noise in it."""
        return x - self.network(x)


def psnr(network: nn.Module, pairs: Sequence[Pair], shave: int = 0) -> float:
    """Return the mean PSNR in dB over pictures, in eval mode, values cut to [0, 1].

    pairs : (input, wanted) of shape (1, 1, H, W).   shave : border pixels that do not count.
    """
    training = network.training
    network.eval()
    found = []
    with torch.no_grad():
        for given, wanted in pairs:
            inner = (..., slice(shave, wanted.shape[-2] - shave),
                     slice(shave, wanted.shape[-1] - shave))
            error = network(given).clamp(0, 1)[inner].double() - wanted[inner].double()
            found.append(-10 * math.log10(float(error.square().mean())))
    network.train(training)
    return float(np.mean(found))


def noisy_pictures(name: str, sigma: int, limit: int | None) -> list[Pair]:
    """Return (noisy, clean) grey pictures of "set12" or "bsd68"; noise seeded by the position."""
    pairs = []
    for index, picture in enumerate(_grey(name)[:limit]):
        clean = torch.from_numpy(picture)[None, None]
        generator = torch.Generator().manual_seed(index)
        pairs.append((clean + sigma / 255 * torch.randn(clean.shape, generator=generator), clean))
    return pairs


def blurred_set5(scale: int, limit: int | None) -> list[Pair]:
    """Return (enlarged, original) luma of Set5 at a scale."""
    with np.load(experiment("set5.npz")) as archive:
        colours = [archive[name] for name in archive.files[:limit]]
    pairs = []
    for picture in colours:
        luma = (16 / 255 + picture / 255 @ _LUMA).astype(np.float32)
        luma = luma[:luma.shape[0] // scale * scale, :luma.shape[1] // scale * scale]
        versions = _blur(luma, scale), luma
        pairs.append(tuple(torch.from_numpy(version)[None, None] for version in versions))
    return pairs


def patches(count: int, side: int, seed: int) -> torch.Tensor:
    """Return random squares of train400, mirrored and turned at random: (count, 1, side, side)."""
    pictures = [(picture,) for picture in _grey("train400")]
    return _cut(lambda index: pictures[index], len(pictures), count, side, seed)[0]


def blurred_patches(count: int, side: int, scales: Sequence[int], seed: int) -> Pair:
    """Return (enlarged, original) squares of train400, the scales in equal shares and mixed."""
    pictures, made = _grey("train400"), {}

    def both(index: int) -> tuple[np.ndarray, ...]:
        if index not in made:
            scale = scales[index % len(scales)]
            whole = pictures[index // len(scales)]
            made[index] = (_blur(whole, scale), whole)
        return made[index]

    return _cut(both, len(pictures) * len(scales), count, side, seed)


def _grey(name: str) -> list[np.ndarray]:
    """Return the pictures of a set, float32 (H, W) in [0, 1]."""
    with np.load(experiment(f"{name}.npz")) as archive:
        return [archive[key].astype(np.float32) / np.float32(255) for key in archive.files]


def _blur(picture: np.ndarray, scale: int) -> np.ndarray:
    """Return a picture made `scale` times smaller and large again; its sides are multiples."""
    height, width = picture.shape
    small = Image.fromarray(picture).resize((width // scale, height // scale), Image.BICUBIC)
    return np.array(small.resize((width, height), Image.BICUBIC))


def _cut(
    source: Callable[[int], tuple[np.ndarray, ...]], pictures: int, count: int, side: int, seed: int
) -> tuple[torch.Tensor, ...]:
    """Return `count` squares at random places of random pictures, the same of each version."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        versions = source(int(random.integers(pictures)))
        y, x = (int(random.integers(length - side + 1)) for length in versions[0].shape)
        turns, mirror = int(random.integers(4)), bool(random.integers(2))
        squares = [np.rot90(version[y:y + side, x:x + side], turns) for version in versions]
        rows.append([np.fliplr(square) if mirror else square for square in squares])
    return tuple(torch.from_numpy(np.ascontiguousarray(np.stack(version)[:, None]))
                 for version in zip(*rows, strict=True))
