"""What follows the exact sums of a node, and the exponent of what it stores (numerics, 3 and 4)."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from celosia_spec.block import floor_log2
from celosia_spec.epilogue import Activation, Dynamic, Exponent, Identity, Kept, Pool, Relu, Static
from celosia_spec.isa import EXPONENT_MAX


def activated(sums: np.ndarray, activation: Activation) -> np.ndarray:
    """Return the activation of every sum, exactly."""
    match activation:
        case Identity():
            return sums
        case Relu():
            return np.maximum(sums, 0)
        case _:
            assert_never(activation)


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


def block_exponent(rule: Exponent, sums: np.ndarray, scale: np.ndarray,
                   blocks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the exponent of each image's tensor, int64 (N,).

    sums   : A', int64 (N, rows, H, W), after activation and pooling.
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
            return found.clip(rule.least, EXPONENT_MAX)
        case _:
            assert_never(rule)
