"""Rows whose weights are faint against their bias (numerics, section 5).

An accumulator counts in units of its row, so a row of very small weights has room for a small bias
only: for a larger one its input may not have small exponents, and all other rows that read this
input would pay for it. Such a row gets a larger weight exponent instead. Its weights become
coarser, but never coarser than FAINT_BITS below an ordinary row of its layer. A residual operand
needs room in an accumulator likewise.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from celosia_spec.block import Format
from celosia_spec.isa.numbers import EXPONENT_MIN, UNIT_MARGIN
from celosia_spec.qgraph import QNode, row_magnitudes

FAINT_BITS = 3
"""A row is faint where its weight exponent lies by more than this below the layer's mean."""

ROOM_BITS = 5
"""By so much exponents may differ from the expected ones before anything is lost."""


def faint_lsb(node: QNode) -> int:
    """Return the exponent of the least significant bit to which faint rows may be raised.

    That is FAINT_BITS below the root mean square of 2^s_w over the rows with weights, rounded
    down; found in integers.
    """
    live = node.sw[row_magnitudes(node.matrix) > 0]
    rows = [int(s) for s in (live if live.size else node.sw)]
    least = min(rows)
    mean_square = sum(1 << 2 * (s - least) for s in rows) // len(rows)
    return least + (mean_square.bit_length() - 1) // 2 - FAINT_BITS


def bias_minima(node: QNode, sw: np.ndarray, width: int, inputs: Format) -> np.ndarray:
    """Return for each row the input exponent from which its bias cannot overflow, int64 (rows,).

    sw : weight exponents to count with.   width : of the accumulators.
    inputs : what the mantissas of the node's input are.
    EXPONENT_MIN where a row has no bias.
    """
    magnitude = np.frexp(np.abs(node.bias).astype(np.float64))[1].astype(np.int64) - 1
    needed = magnitude + node.sb + 4 - width - sw + inputs.fraction
    return np.where(node.bias == 0, EXPONENT_MIN, needed).clip(min=EXPONENT_MIN)


def unit_minima(node: QNode, sw: np.ndarray, width: int, inputs: Format) -> np.ndarray:
    """Return for each row the input exponent from which its sums' unit is large enough to be
    normalised, int64 (rows,).

    Arguments as of `bias_minima`. EXPONENT_MIN where a row has no weights.
    """
    needed = inputs.fraction - sw - (width + UNIT_MARGIN)
    return np.where(row_magnitudes(node.matrix) == 0, EXPONENT_MIN, needed).clip(min=EXPONENT_MIN)


def input_minima(node: QNode, sw: np.ndarray, width: int, inputs: Format) -> np.ndarray:
    """Return for each row the smallest exponent that its input may have, int64 (rows,).

    Arguments as of `bias_minima`.
    """
    minima: np.ndarray = np.maximum(bias_minima(node, sw, width, inputs),
                                    unit_minima(node, sw, width, inputs))
    return minima


def exponent_minima(tensors: Sequence[str], nodes: Sequence[QNode], needed: Mapping[str, int],
                    kept: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the smallest exponent of every tensor, and of every node's reading by its name.

    Of a node that reads several tensors together, the second is what stands in the node: its
    operands owe it nothing.

    needed : by node, what its rows need of its input.
    kept   : names of the tensors that keep the exponent of the node's input.
    """
    minima = dict.fromkeys(tensors, EXPONENT_MIN)
    for node in reversed(nodes):
        least = max(needed[node.name],
                    minima[node.output] if node.output in kept else EXPONENT_MIN)
        if not node.joins:
            minima[node.input] = max(minima[node.input], least)
    return minima, {node.name: needed[node.name] if node.joins else minima[node.input]
                    for node in nodes}


def raised_lsbs(nodes: Sequence[QNode], expected: Mapping[str, int], width: int,
                formats: Mapping[str, Format], kept: Collection[str]) -> dict[str, np.ndarray]:
    """Return the weight exponents s_w of every node's rows with the faint ones raised, by its name.

    expected : exponent that each tensor is likely to have, by name.
    formats  : what the mantissas of each tensor are, by name.
    kept     : names of the tensors that keep the exponent of the node's input.

    A tensor is to have ROOM_BITS below its expected exponent, and a residual operand as many above;
    faint rows are raised so far that they leave it, if they can, and no further.
    """
    highest = {node.name: node.sw if node.output in kept else np.maximum(node.sw, faint_lsb(node))
               for node in nodes}
    needed = {node.name: int(input_minima(node, highest[node.name], width,
                                          formats[node.input]).max()) for node in nodes}
    minima = exponent_minima(list(expected), nodes, needed, kept)[1]
    found = {}
    for node in nodes:
        inputs, likely = formats[node.input], max(expected[name] for name in node.inputs)
        over = (input_minima(node, node.sw, width, inputs)
                - max(minima[node.name], likely - ROOM_BITS))
        if node.epilogue.add is not None:
            apart = expected[node.epilogue.add] - likely
            fitting = apart + ROOM_BITS + 4 - width + inputs.fraction
            over = np.maximum(over, fitting - node.sw)
        found[node.name] = np.minimum(node.sw + np.maximum(over, 0), highest[node.name])
    return found
