"""Tucker-2: one convolution becomes a thin one between two of 1 x 1.

P4, after Kim et al., "Compression of deep convolutional neural networks for fast and low power
mobile applications", arXiv 1511.06530: the kernel is decomposed along its output and its input
channels, with ranks from the variational Bayes of `celosia.compress.evbmf`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from torch import nn

from celosia.compress.entry import entry
from celosia.compress.lowrank.evbmf import evbmf
from celosia.compress.lowrank.svd import (
    check_layer,
    convolution,
    energy_rank,
    in_place_of,
    output_size,
    pointwise,
)
from celosia_spec.errors import ArgumentError

__all__ = [
    "tucker2",
    "tucker_full_ranks",
    "tucker_macs",
    "tucker_parameters",
    "tucker_ranks",
    "tucker_ranks_for_energy",
]

Ranks = tuple[int, int]

MINIMUM = 8
"""Least rank of a mode that `tucker_ranks` gives by itself, as the library musco has it."""

_ITERATIONS, _TOLERANCE = 100, 1e-7
"""Of the higher-order orthogonal iteration: most rounds, and the change of the relative error at
which it stops."""


@entry
def tucker2(conv: nn.Conv2d, ranks: Sequence[int]) -> nn.Sequential:
    """Return three convolutions that together approximate one.

    With ``W[o, i, y, x] ~ sum C[p, q, y, x] F[o, p] G[i, q]`` they are 1 x 1 I -> rank_in with the
    weights G^T, then rank_in -> rank_out with the core C and the layer's kernel, stride, padding
    and dilation, then 1 x 1 rank_out -> O with F and the layer's bias. Decomposed in float64 by
    higher-order orthogonal iteration (tensorly's `partial_tucker`); the result has the layer's
    type, device and mode, and is frozen where the layer is.

    Parameters
    ----------
    conv
        Conv2d with weights (O, I, kh, kw) and groups = 1.
    ranks
        (rank_out, rank_in), each from 1 to the channels, and neither above kh kw times the other:
        more would be padded with zeros. At `tucker_full_ranks` nothing is lost.

    Raises
    ------
    ArgumentError
        Another kind of layer, groups other than 1, or ranks out of range; hooks, or a forward of
        its own.
    """
    outputs, inputs = check_ranks(conv, ranks)
    kernel = conv.weight.detach().cpu().double().numpy()
    core, left, right = _decompose(kernel, outputs, inputs)
    parts = [
        pointwise(conv, right.T),
        convolution(conv, core, conv.stride, conv.padding, conv.dilation),
        pointwise(conv, left, conv.bias is not None),
    ]
    return in_place_of(conv, parts)


def tucker_full_ranks(conv: nn.Conv2d) -> Ranks:
    """Return the largest ranks that the kernel can have along its output and input channels."""
    _check_conv(conv)
    return consistent(conv, conv.out_channels, conv.in_channels)


def tucker_parameters(conv: nn.Conv2d, ranks: Sequence[int]) -> int:
    """Return the weights of the three layers, biases not counted.

    ``I rank_in + kh kw rank_in rank_out + rank_out O``; the layer's own weights divided by it are
    P4's Rc.
    """
    _check_conv(conv)
    outputs, inputs = ranks
    area = math.prod(conv.kernel_size)
    weights: int = conv.in_channels * inputs + area * inputs * outputs + outputs * conv.out_channels
    return weights


def tucker_macs(conv: nn.Conv2d, ranks: Sequence[int], size: tuple[int, int]) -> int:
    """Return the multiply-accumulates of the three layers for one input.

    ``I rank_in H W + (kh kw rank_in rank_out + rank_out O) H' W'``; the layer's own divided by it
    are P4's Rs.

    size : height H and width W of the input, not padded; H' and W' follow.
    """
    _check_conv(conv)
    _, inputs = ranks
    first: int = conv.in_channels * inputs
    rest = tucker_parameters(conv, ranks) - first
    return first * math.prod(size) + rest * math.prod(output_size(conv, size))


@entry
def tucker_ranks(conv: nn.Conv2d, weakening: float = 1.0, minimum: int = MINIMUM) -> Ranks:
    """Return the ranks that variational Bayes finds in a kernel, (rank_out, rank_in).

    Each is `evbmf` of the kernel unfolded along output or input channels, drawn towards the full
    rank R as ``floor(R - weakening (R - rank))`` and then lifted to `minimum` (no more than R).

    weakening : 1 takes the found ranks as they are, 0 the full ones.   minimum : at least 1.
    """
    full = tucker_full_ranks(conv)
    check_weakening(weakening, minimum)
    found = [
        weakened(most, evbmf(_unfold(conv, mode))[0], weakening, minimum)
        for mode, most in enumerate(full)
    ]
    return consistent(conv, *found)


def tucker_ranks_for_energy(conv: nn.Conv2d, share: float) -> Ranks:
    """Return the smallest ranks that keep a share of the kernel's energy along each mode.

    share : 0 < share <= 1, of the sum of the squared singular values of each unfolding.
    """
    _check_conv(conv)
    found = [
        energy_rank(np.linalg.svd(_unfold(conv, mode), compute_uv=False), share) for mode in (0, 1)
    ]
    return consistent(conv, *found)


def weakened(full: int, found: int, weakening: float, minimum: int) -> int:
    """Return a rank between the found and the full one, as `tucker_ranks` describes."""
    exact = full - Fraction(weakening).limit_denominator(10**9) * (full - found)
    return min(max(math.floor(exact), minimum), full)


def check_weakening(weakening: float, minimum: int) -> None:
    """Refuse a weakening factor outside 0 to 1 and a minimum below 1."""
    if not 0 <= weakening <= 1:
        raise ArgumentError(f"weakening must be from 0 (full rank) to 1 (EVBMF's), not {weakening}")
    if minimum < 1:
        raise ArgumentError(f"the minimum rank must be at least 1, not {minimum}")


def _decompose(kernel: np.ndarray, outputs: int, inputs: int) -> tuple[np.ndarray, ...]:
    """Return core (outputs, inputs, kh, kw) and factors (O, outputs), (I, inputs)."""
    import tensorly
    from tensorly.decomposition import partial_tucker

    if not kernel.any():
        return (np.zeros((outputs, inputs, *kernel.shape[2:])),
                np.eye(kernel.shape[0], outputs), np.eye(kernel.shape[1], inputs))
    with tensorly.backend_context("numpy", local_threadsafe=True):
        (core, (left, right)), _ = partial_tucker(
            kernel, rank=[outputs, inputs], modes=[0, 1], n_iter_max=_ITERATIONS,
            tol=_TOLERANCE, random_state=0,
        )  # fmt: skip
    return core, left, right


def _unfold(conv: nn.Conv2d, mode: int) -> np.ndarray:
    """Return the kernel as a float64 matrix with one row for each output (0) or input (1) channel.
    """
    kernel: np.ndarray = conv.weight.detach().cpu().double().numpy()
    return np.moveaxis(kernel, mode, 0).reshape(kernel.shape[mode], -1)


def consistent(conv: nn.Conv2d, outputs: int, inputs: int) -> Ranks:
    """Return the ranks, the larger one cut to the kernel's area times the other."""
    area = math.prod(conv.kernel_size)
    return min(outputs, area * inputs), min(inputs, area * outputs)


def _check_conv(conv: nn.Module) -> None:
    if not isinstance(conv, nn.Conv2d):
        raise ArgumentError(
            f"Tucker-2 decomposes Conv2d layers, not {type(conv).__name__}; use svd for a Linear"
        )
    check_layer(conv)


def check_ranks(conv: nn.Conv2d, ranks: Sequence[int]) -> Ranks:
    """Return the ranks, or refuse what `tucker2` cannot give a layer."""
    _check_conv(conv)
    most = conv.out_channels, conv.in_channels
    good = len(ranks) == 2 and all(
        not isinstance(rank, bool) and isinstance(rank, int | np.integer) and 1 <= rank <= top
        for rank, top in zip(ranks, most, strict=True)
    )
    if not good:
        raise ArgumentError(
            f"ranks of a convolution of {most[1]} inputs and {most[0]} outputs are two whole "
            f"numbers (rank_out, rank_in) from 1 to {most}, not {ranks!r}"
        )
    if consistent(conv, *ranks) != tuple(ranks):
        raise ArgumentError(
            f"ranks {tuple(ranks)}: one is above {math.prod(conv.kernel_size)} (the kernel's area) "
            f"times the other; {consistent(conv, *ranks)} loses nothing"
        )
    return int(ranks[0]), int(ranks[1])
