"""What follows the exact sums of a node, and the exponent of what it stores (numerics, 3 and 4)."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from celosia_spec.block import floor_log2
from celosia_spec.epilogue import (
    Activation,
    Clamp,
    Dynamic,
    Exponent,
    Identity,
    Kept,
    Pool,
    Relu,
    Static,
    highest,
)


def activated(sums: np.ndarray, activation: Activation) -> np.ndarray:
    """Return the activation of every sum, exactly; what a clamp's bounds are on mantissas is left
    to `limited`."""
    match activation:
        case Identity():
            return sums
        case Relu():
            positive: np.ndarray = np.maximum(sums, 0)
            return positive
        case Clamp():
            return np.maximum(sums, 0) if activation.low == 0 else sums
        case _:
            assert_never(activation)


def limited(m: np.ndarray, activation: Activation, s_o: np.ndarray) -> np.ndarray:
    """Return mantissas within the bounds of a clamp, rounded as they are.

    m : int64 (N, C, H, W).   s_o : exponent of their unit, broadcast.
    """
    if not isinstance(activation, Clamp):
        return m
    low, high = (np.rint(np.ldexp(bound, -s_o)).astype(np.int64) for bound in activation.bounds)
    within: np.ndarray = np.minimum(np.maximum(m, low), high)
    return within


def max_pool(x: np.ndarray, pool: Pool | None) -> np.ndarray:
    """Return the maximum over windows of (N, C, H, W); partial windows are dropped."""
    if pool is None:
        return x
    (kh, kw), (sy, sx) = pool.window, pool.stride
    height, width = (x.shape[2] - kh) // sy + 1, (x.shape[3] - kw) // sx + 1
    result = x[:, :, :(height - 1) * sy + 1:sy, :(width - 1) * sx + 1:sx]
    for y in range(kh):
        for z in range(kw):
            part = x[:, :, y:y + (height - 1) * sy + 1:sy, z:z + (width - 1) * sx + 1:sx]
            result = np.maximum(result, part)
    return result


def block_exponent(rule: Exponent, activation: Activation, sums: np.ndarray, scale: np.ndarray,
                   blocks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the exponent of each image's tensor, int64 (N,).

    activation : what came before.   sums : A', int64 (N, rows, H, W), after it and pooling.
    scale  : S_k, (N, rows), exponent of their unit.
    blocks : exponents of the tensors so far, (N,) each.
    """
    match rule:
        case Kept():
            return blocks[rule.of].astype(np.int64)
        case Static():
            return np.full(len(sums), rule.value, dtype=np.int64)
        case Dynamic():
            largest = np.abs(sums).max(axis=(2, 3))
            found: np.ndarray = (floor_log2(largest) + scale).max(axis=1)
            return found.clip(rule.least, highest(activation, rule.least))
        case _:
            assert_never(rule)
