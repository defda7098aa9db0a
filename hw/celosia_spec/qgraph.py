"""The quantised graph: what the golden model runs and what the scheduler lowers.

Integers only. It knows nothing of lanes, tiles or schedules. ``docs/numerics.md`` defines the
arithmetic; the field names below are its symbols.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

COPY = "copy"
"""Kind of the nodes that the compiler adds where a tensor has several readers."""


@dataclass(frozen=True, kw_only=True)
class QTensor:
    """A stored tensor: one block, one exponent for each image.

    shape           : (C, H, W). A vector of F features is (F, 1, 1).
    user_shape      : the shape the user sees, without the batch axis: (C, H, W) or (F,).
    bits            : mantissa width L, sign included; 16 for the network's output.
    exponent_min    : the smallest block exponent (numerics, section 4), -16 ... 15.
    static_exponent : the calibrated exponent, or None (dynamic).
    """

    name: str
    shape: tuple[int, int, int]
    user_shape: tuple[int, ...]
    bits: int
    exponent_min: int
    static_exponent: int | None


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where an output position of a linear node looks. All in elements of the input map.

    kernel, stride, dilation : (y, x).   padding : (top, left, bottom, right), zeros.
    A fully connected layer is a kernel of its whole input map.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Max-pooling without padding: window and stride (y, x); partial windows are dropped."""

    window: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class QNode:
    """One node: exact sums, one rounding, one stored tensor (numerics, sections 3 and 4).

    kind     : "conv", "linear", "average" or "select"; for reports only.
    input, output, residual : tensor names; residual may be None.
    matrix   : weight mantissas, csr_array int16 (rows, C * kh * kw), column index
               ``c * kh * kw + ky * kw + kx`` over all input channels (grouped and depthwise rows
               hold only their own channels). Sorted indices. A stored zero counts as a weight to
               be executed (that is how the dense baseline keeps its zeros).
    weights  : number of weights of the layer before any was removed (density's denominator).
    sw       : int64 (rows,), exponent of a weight mantissa's least significant bit.
    raised   : (row, bits) of the faint rows whose sw was raised so far (numerics, section 5);
               for reports only.
    bias     : int64 (rows,), 16-bit bias mantissas.   sb : int64 (rows,), their exponents s_b.
    relu     : clamp at zero before pooling.   pool : max-pooling fused into the node, or None.
    keep     : the output keeps the input's exponent (select nodes).
    """

    name: str
    kind: str
    input: str
    output: str
    residual: str | None = None
    matrix: csr_array
    weights: int
    geometry: Geometry
    sw: np.ndarray
    bias: np.ndarray
    sb: np.ndarray
    relu: bool = False
    pool: Pool | None = None
    keep: bool = False
    raised: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class QGraph:
    """Nodes in execution order; tensors by name.

    input, output : names of the network's input and output tensors.
    weight_bits, activation_bits : mantissa widths L.
    acc_bits      : accumulator width W, proved sufficient for every row.
    remarks       : what 24-bit accumulators cost this network, or why it takes 32 bits; for
                    reports only, one line each.
    """

    tensors: dict[str, QTensor]
    nodes: tuple[QNode, ...]
    input: str
    output: str
    weight_bits: int
    activation_bits: int
    acc_bits: int
    remarks: tuple[str, ...] = ()
