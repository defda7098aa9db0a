"""A layer that stands for another one, tried on random inputs before it does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["random_input", "same_up_to_rounding"]

_ROUNDINGS = 8.0
"""A number may differ by so many roundings: its weight's, its bias's, and those of the sums."""


def random_input(layer: nn.Module, more: Sequence[int] = (1, 1, 1)) -> torch.Tensor:
    """Return inputs (2, ...) of normal random numbers, float64, for a convolution or Linear.

    more : rows, columns, ... beyond those that a convolution's kernel covers in two steps.
    """
    device, generator = layer.weight.device, torch.Generator().manual_seed(0)
    shape = [2, layer.weight.shape[1]]
    if not isinstance(layer, nn.Linear):
        shape[1] = layer.in_channels
        shape += [d * (k - 1) + 1 + s + m for d, k, s, m in
                  zip(layer.dilation, layer.kernel_size, layer.stride, more, strict=False)]
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)


def same_up_to_rounding(before: torch.Tensor, after: torch.Tensor, size: torch.Tensor,
                        kind: torch.dtype) -> bool:
    """Tell whether two results (float64) are the same but for rounding of weights.

    size : sums of the absolute values of all that was added up, of their shape.
    kind : the floating type of the weights.
    """
    info = torch.finfo(kind)
    allowed = _ROUNDINGS * info.eps * (size + info.tiny)
    return before.shape == after.shape and bool(((after - before).abs() <= allowed).all())
