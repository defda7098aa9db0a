"""Room for residual operands that have a bound, however small the sums are that they join.

What is added to a row's sums is cut at 2^(W - 3) - 1 of their units (numerics, section 3), and a
unit follows the exponent of the row's input. Of a function in pieces the input is 0 for a whole
image where a ReLU makes it, and the pieces are what is added.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from celosia.graph import Conv
from celosia_spec.block import Format, floor_log2
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN
from celosia_spec.qgraph import QNode


def bounds(layers: Sequence[Conv]) -> dict[str, float]:
    """Return the largest magnitude that sums may have, of the layers that make a function of its
    pieces, by name: every channel is made of several that are clamped from 0 on, of its own."""
    clamps = {layer.name: layer.epilogue.activation.bounds[1] for layer in layers
              if layer.epilogue.activation.clamps and layer.epilogue.activation.bounds[0] == 0}
    found = {}
    for layer in layers:
        rows, pieces = layer.weight.shape[:2]
        if (layer.epilogue.add is not None or layer.others or layer.groups != rows or pieces == 1
                or layer.input not in clamps):
            continue
        ends = layer.weight * clamps[layer.input]
        bias = 0.0 if layer.bias is None else layer.bias
        farthest = [sums.sum(axis=(1, 2, 3)) + bias
                    for sums in (np.minimum(ends, 0), np.maximum(ends, 0))]
        found[layer.name] = float(np.abs(farthest).max())
    return found


def operand_minimum(node: QNode, width: int, inputs: Format, bounds: Mapping[str, float]) -> int:
    """Return the smallest exponent that a node's input may have, so that a residual operand with a
    bound is not cut; `EXPONENT_MIN` where it has no such operand.

    width : W, of the accumulators.   inputs : of the input's mantissas.
    bounds : as `bounds` returns them.
    """
    most = bounds.get(node.epilogue.add or "", 0.0)
    if not most:
        return EXPONENT_MIN
    above = int(floor_log2(np.array(most))) + 1
    found = above + 3 - width - int(node.sw.min()) + inputs.fraction
    return min(max(found, EXPONENT_MIN), EXPONENT_MAX)
