"""Exact sums of a linear node (numerics, section 3)."""

import math
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.sparse import csr_array

from celosia_spec.block import Format
from celosia_spec.qgraph import Border, Geometry, QNode, farthest_sums

Weights: TypeAlias = np.ndarray | csr_array

DENSE = 0.05
"""Density from which a dense product is faster than a sparse one."""


def weight_operand(node: QNode, inputs: Format) -> Weights:
    """Return the weight matrix in the float type and form that sums exactly and fastest.

    inputs : what the mantissas of the node's input are.

    No partial sum lies farther from 0 than `farthest_sums`: float32 is exact below 2^24, float64
    below 2^53, which the accumulator proof of the compiler guarantees.
    """
    matrix = node.matrix
    bound = int(farthest_sums(matrix, inputs).max(initial=0))
    assert bound < 1 << 53, f"{node.name}: sums of up to {bound} are not exact"
    kind = np.float32 if bound < 1 << 24 else np.float64
    weights: csr_array = matrix.astype(kind)
    return weights.toarray() if matrix.nnz >= DENSE * math.prod(matrix.shape) else weights


def columns(x: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the inputs of every output position, (C * kh * kw, N * H * W), and (H, W).

    x : (N, C, height, width).   Rows in the order of ``QNode.matrix``'s columns.
    """
    if any(geometry.border):
        x = bordered(x, geometry.border)
    top, left, bottom, right = geometry.padding
    if any(geometry.padding):
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (kh, kw), (dy, dx) = geometry.kernel, geometry.dilation
    window = ((kh - 1) * dy + 1, (kw - 1) * dx + 1)
    view = sliding_window_view(x, window, axis=(2, 3))
    view = view[:, :, ::geometry.stride[0], ::geometry.stride[1], ::dy, ::dx]
    n, c, height, width = view.shape[:4]
    return (view.transpose(1, 4, 5, 0, 2, 3).reshape(c * kh * kw, n * height * width),
            (height, width))


def bordered(x: np.ndarray, border: Border) -> np.ndarray:
    """Return maps (N, C, height, width) with what stands around them."""
    for axis, before, behind in ((2, border[0], border[2]), (3, border[1], border[3])):
        first, last = ([(x[:, list(edge.channels)] if edge.channels else x).take([edge.at], axis)
                        for edge in edges] for edges in (before, behind))
        x = np.concatenate([*first, x, *last], axis=axis)
    return x


def exact_sums(x: np.ndarray, weights: Weights, geometry: Geometry) -> np.ndarray:
    """Return A = sum m_w * m_x, int64 (N, rows, H, W).

    x : integers (N, C, height, width).   weights : from :func:`weight_operand`.
    """
    operand, (height, width) = columns(x.astype(weights.dtype), geometry)
    sums = (weights @ operand).reshape(weights.shape[0], len(x), height, width)
    exact: np.ndarray = sums.transpose(1, 0, 2, 3).astype(np.int64)
    return exact
