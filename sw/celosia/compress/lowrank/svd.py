"""Low-rank layers by singular value decomposition: one layer becomes two thinner ones.

P3, section 6.5. Scheme "channel" is `r` basis kernels followed by a 1 x 1 recombination; scheme
"spatial" is a column of kh x 1 and a row of 1 x kw kernels (Jaderberg, Vedaldi, Zisserman,
"Speeding up convolutional neural networks with low rank expansions", arXiv 1405.3866).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from celosia.compress.entry import entry
from celosia.compress.layers import held_weight, obstacle
from celosia.compress.masks.weights import Mask
from celosia.compress.spans import POSITIVE
from celosia.compress.words import SCHEMES
from celosia_spec.errors import ArgumentError

__all__ = [
    "as_matrix",
    "energy_rank",
    "rank_for_energy",
    "rank_for_speedup",
    "svd",
    "svd_full_rank",
    "svd_macs",
    "svd_parameters",
]

Layer: TypeAlias = nn.Conv2d | nn.Linear


@entry
def svd(layer: Layer, rank: int, scheme: str = "channel") -> nn.Sequential:
    """Return two layers that together compute a layer's best approximation of a rank.

    With the weight as a matrix ``U S V^T`` (`as_matrix`), the first layer has the weights
    ``sqrt(S_r) V_r^T`` and no bias, the second ``U_r sqrt(S_r)`` and the layer's bias. The
    Frobenius norm of what is lost is the root of the sum of the squared singular values that are
    cut (Eckart and Young, 1936). Computed in float64; the result has the layer's type, device and
    mode, and is frozen where the layer is.

    Parameters
    ----------
    layer
        Conv2d with weights (O, I, kh, kw) and groups = 1, or Linear with weights (out, in).
    rank
        r, from 1 to `svd_full_rank`; at that rank nothing is lost.
    scheme
        For a convolution. "channel": conv I -> r with the layer's kernel, stride, padding and
        dilation, then 1 x 1 r -> O. "spatial": conv I -> r with kh x 1 and the vertical stride,
        padding and dilation, then r -> O with 1 x kw and the horizontal ones. A Linear has one
        scheme: in -> r -> out.

    Raises
    ------
    ArgumentError
        Another kind of layer, groups other than 1, or a rank or scheme out of range; a layer that
        computes something else than its class, weight and bias say (hooks, a forward of its own).
    """
    check_rank(layer, rank, scheme)
    left, values, right = np.linalg.svd(as_matrix(layer, scheme), full_matrices=False)
    root = np.sqrt(values[:rank])
    first, second = root[:, None] * right[:rank], left[:, :rank] * root
    if isinstance(layer, nn.Linear):
        parts = _linears(layer, first, second)
    elif scheme == "channel":
        parts = _channel(layer, first, second)
    else:
        parts = _spatial(layer, first, second)
    return in_place_of(layer, parts)


def svd_full_rank(layer: Layer, scheme: str = "channel") -> int:
    """Return the largest rank that the weight, as a matrix, can have."""
    return min(_shape(layer, scheme))


def svd_parameters(layer: Layer, rank: int, scheme: str = "channel") -> int:
    """Return the weights of the two layers that `svd` gives, biases not counted.

    ``r (I kh kw + O)`` for "channel", ``r (I kh + O kw)`` for "spatial", ``r (in + out)`` for a
    Linear.
    """
    return rank * sum(_shape(layer, scheme))


def svd_macs(
    layer: Layer, rank: int, scheme: str = "channel", size: tuple[int, int] = (1, 1)
) -> int:
    """Return the multiply-accumulates of the two layers for one input.

    size : height and width of a convolution's input (not padded); of a Linear, the number of
           vectors that it is applied to, and 1.
    """
    rows, columns = _shape(layer, scheme)
    if isinstance(layer, nn.Linear):
        return rank * (rows + columns) * math.prod(size)
    height, width = output_size(layer, size)
    first = columns * height * (width if scheme == "channel" else size[1])
    return rank * (first + rows * height * width)


@entry
def rank_for_energy(layer: Layer, share: float, scheme: str = "channel") -> int:
    """Return the smallest rank that keeps a share of the energy, the squared singular values.

    share : 0 < share <= 1, of ``sum s_i^2``. A layer of zeros gets rank 1.
    """
    return energy_rank(np.linalg.svd(as_matrix(layer, scheme), compute_uv=False), share)


@entry
def rank_for_speedup(layer: Layer, factor: float, scheme: str = "channel") -> int:
    """Return the largest rank whose layers have `factor` times fewer weights, at least 1.

    P3: ``r = floor(I kh kw O / (s (I kh kw + O)))``. Multiply-accumulates fall by the same factor
    in scheme "channel", whose two layers both run at the output's resolution, and in scheme
    "spatial" where the horizontal stride is 1 and the width is kept.

    factor : s, above 0.
    """
    POSITIVE.check("a speed-up", factor)
    rows, columns = _shape(layer, scheme)
    exact = Fraction(factor).limit_denominator(10**9) * (rows + columns)
    return min(max(1, math.floor(rows * columns / exact)), rows, columns)


def energy_rank(values: np.ndarray, share: float) -> int:
    """Return how many of the singular values (largest first) hold a share of the energy."""
    if not 0 < share <= 1:
        raise ArgumentError(f"a share of energy must be above 0 and at most 1, not {share!r}")
    energy = np.cumsum(np.square(values, dtype=np.float64))
    if energy[-1] == 0:
        return 1
    return int(np.searchsorted(energy, share * energy[-1])) + 1


def as_matrix(layer: Layer, scheme: str = "channel") -> np.ndarray:
    """Return the weight as the float64 matrix that is decomposed.

    "channel": (O, I kh kw). "spatial": (O kw, I kh). Linear: (out, in).
    """
    weight = layer.weight.detach().cpu().double().numpy()
    if weight.ndim == 4 and scheme == "spatial":
        weight = weight.transpose(0, 3, 1, 2)
    matrix: np.ndarray = weight.reshape(_shape(layer, scheme))
    return matrix


def output_size(conv: nn.Conv2d, size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a convolution's output for an input of that height and width."""
    return tuple(
        (length + total - dilation * (kernel - 1) - 1) // stride + 1
        for length, total, dilation, kernel, stride in zip(
            size, _padded(conv), conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    )


def check_layer(layer: nn.Module) -> None:
    """Refuse what is not a Linear or a Conv2d with groups = 1, or has an `obstacle`."""
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise ArgumentError(
            f"only Conv2d and Linear layers can be decomposed, not {type(layer).__name__}"
        )
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise ArgumentError(
            f"a convolution with groups = {layer.groups} cannot be decomposed; leave it out"
        )
    problem = obstacle(layer, allowed=[Mask])
    if problem is not None:
        raise ArgumentError(f"a layer that is to be decomposed {problem}")


def in_place_of(layer: Layer, parts: Sequence[nn.Module]) -> nn.Sequential:
    """Return the parts in a row, the last with the layer's bias, frozen where the layer is."""
    for part in parts:
        part.weight.requires_grad_(held_weight(layer).requires_grad)
    if layer.bias is not None:
        with torch.no_grad():
            parts[-1].bias.copy_(layer.bias)
        parts[-1].bias.requires_grad_(layer.bias.requires_grad)
    return nn.Sequential(*parts).train(layer.training)


def convolution(
    like: nn.Conv2d, weight: np.ndarray, stride: tuple[int, ...], padding: tuple[int, ...] | str,
    dilation: tuple[int, ...], bias: bool = False,
) -> nn.Conv2d:  # fmt: skip
    """Return a Conv2d with these weights, of another's type, device and padding mode."""
    outputs, inputs, *kernel = weight.shape
    made = nn.Conv2d(
        inputs, outputs, tuple(kernel), stride=stride, padding=padding, dilation=dilation,
        bias=bias, padding_mode=like.padding_mode, device=like.weight.device,
        dtype=like.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
    return made


def pointwise(like: nn.Conv2d, weight: np.ndarray, bias: bool = False) -> nn.Conv2d:
    """Return a 1 x 1 convolution with the weights (outputs, inputs)."""
    return convolution(like, weight[:, :, None, None], (1, 1), (0, 0), (1, 1), bias)


def _linears(layer: nn.Linear, first: np.ndarray, second: np.ndarray) -> list[nn.Module]:
    parts = []
    for weight, bias in ((first, False), (second, layer.bias is not None)):
        part = nn.Linear(weight.shape[1], weight.shape[0], bias=bias,
                         device=layer.weight.device, dtype=layer.weight.dtype)  # fmt: skip
        with torch.no_grad():
            part.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        parts.append(part)
    return parts


def _channel(conv: nn.Conv2d, first: np.ndarray, second: np.ndarray) -> list[nn.Module]:
    basis = first.reshape(-1, *conv.weight.shape[1:])
    return [
        convolution(conv, basis, conv.stride, conv.padding, conv.dilation),
        pointwise(conv, second, conv.bias is not None),
    ]


def _spatial(conv: nn.Conv2d, first: np.ndarray, second: np.ndarray) -> list[nn.Module]:
    outputs, inputs, height, width = conv.weight.shape
    rank = len(first)
    down = first.reshape(rank, inputs, height, 1)
    across = second.reshape(outputs, width, rank).transpose(0, 2, 1)[:, :, None, :]
    named = isinstance(conv.padding, str)
    vertical, horizontal = (conv.padding,) * 2 if named else (
        (conv.padding[0], 0), (0, conv.padding[1]))  # fmt: skip
    (sy, sx), (dy, dx) = conv.stride, conv.dilation
    return [
        convolution(conv, down, (sy, 1), vertical, (dy, 1)),
        convolution(conv, across, (1, sx), horizontal, (1, dx), conv.bias is not None),
    ]


def _shape(layer: Layer, scheme: str) -> tuple[int, int]:
    """Return rows and columns of the matrix that is decomposed."""
    check_layer(layer)
    check_scheme(scheme)
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    outputs, inputs, height, width = layer.weight.shape
    if scheme == "channel":
        return outputs, inputs * height * width
    return outputs * width, inputs * height


def check_scheme(scheme: str) -> None:
    """Refuse a scheme that there is not."""
    if scheme not in SCHEMES:
        raise ArgumentError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme!r}")


def check_rank(layer: Layer, rank: int, scheme: str) -> None:
    """Refuse a rank that `svd` cannot give a layer."""
    most = svd_full_rank(layer, scheme)
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= most:
        raise ArgumentError(
            f"the rank of a weight of shape {tuple(layer.weight.shape)} in this decomposition is "
            f"a whole number from 1 to {most}, not {rank!r}"
        )


def _padded(conv: nn.Conv2d) -> tuple[int, int]:
    """Return how many rows and columns padding adds in all."""
    if conv.padding == "same":
        return tuple(d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    if conv.padding == "valid":
        return 0, 0
    return 2 * conv.padding[0], 2 * conv.padding[1]
