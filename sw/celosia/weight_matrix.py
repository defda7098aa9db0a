"""Weights as mantissas with one exponent a row, made a few rows at a time: what is large enough to
matter fits the processor's cache."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from celosia.graph import Conv
from celosia_spec.block import Format, block_exponents
from celosia_spec.errors import CompileError
from celosia_spec.isa.numbers import EXPONENT_MAX

_ELEMENTS = 1 << 16


def row_exponents(node: Conv, what: str, array: np.ndarray) -> np.ndarray:
    """Return block exponents of the rows of an array, int64 (rows,); CompileError where one is too
    large for any.

    array : float64 (rows, n).   what : it is, for the refusal.
    """
    largest = np.maximum(array.max(axis=1, initial=0.0), -array.min(axis=1, initial=0.0))
    row = int(largest.argmax())
    if not largest[row] < 2.0 ** (EXPONENT_MAX + 1):
        raise CompileError(node.name, node.kind, f"the {what} of row {row} reaches "
                           f"{largest[row]:g}, beyond {2.0 ** (EXPONENT_MAX + 1):g}",
                           "rescale the layer")
    return block_exponents(largest[:, None])


def weight_matrix(node: Conv, exponents: np.ndarray, bits: int, *, sparse: bool) -> csr_array:
    """Return the weight mantissas, int16, over all input channels; a group's rows hold their own
    only.

    exponents : int64 (rows,).   bits : of a mantissa.   sparse : leave mantissas of 0 out.
    """
    weight = node.weight.reshape(len(node.weight), -1)
    rows, own = weight.shape
    first = np.arange(rows, dtype=np.int32) // (rows // node.groups) * own
    counts, columns, data = [], [], []
    format = Format(bits=bits)
    live = None if node.live is None else node.live.reshape(rows, own)
    for part in row_parts(rows, own):
        found, _ = format.mantissas(weight[part], exponents[part])
        stored = (found != 0 if sparse else np.ones_like(found, dtype=bool) if live is None
                  else live[part])
        counts.append(np.count_nonzero(stored, axis=1))
        columns.append((first[part, None] + np.arange(own, dtype=np.int32))[stored])
        data.append(found[stored].astype(np.int16))
    starts = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int32)
    return csr_array((np.concatenate(data), np.concatenate(columns), starts),
                     shape=(rows, own * node.groups))


def row_parts(rows: int, own: int) -> Iterator[slice]:
    """Split rows of ``own`` elements into parts that the processor's cache holds."""
    step = max(_ELEMENTS // own, 1)
    for at in range(0, rows, step):
        yield slice(at, at + step)
