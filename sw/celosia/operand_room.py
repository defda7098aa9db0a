"""Room for residual operands that have a bound, however small the sums are that they join.

What is added to a row's sums is cut at 2^(W - 3) - 1 of their units (numerics, section 3), and a
unit follows the exponent of the row's input. Of a function in pieces the input is 0 for a whole
image where a ReLU makes it, and the pieces are what is added.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from celosia.graph import Conv
from celosia_spec.block import Format, floor_log2
from celosia_spec.isa.numbers import EXPONENT_MIN
from celosia_spec.qgraph import QNode

QUIET = 8
"""An exponent is not raised above so much below the expected one, 48 dB."""


def bounds(layers: Sequence[Conv]) -> dict[str, float]:
    """Return the largest magnitude that sums may have, of the layers that add nothing and read
    clamped tensors alone, by name."""
    clamps = {layer.name: layer.epilogue.activation.bounds for layer in layers
              if layer.epilogue.activation.clamps}
    found = {}
    for layer in layers:
        if layer.epilogue.add is not None or not set(layer.read) <= clamps.keys():
            continue
        ends = [layer.weight * end for end in (min(clamps[name][0] for name in layer.read),
                                               max(clamps[name][1] for name in layer.read))]
        bias = 0.0 if layer.bias is None else layer.bias
        farthest = [sums.sum(axis=(1, 2, 3)) + bias
                    for sums in (np.minimum(*ends), np.maximum(*ends))]
        found[layer.name] = float(np.abs(farthest).max())
    return found


def operand_minimum(node: QNode, width: int, inputs: Format, expected: Mapping[str, int],
                    bounds: Mapping[str, float]) -> int:
    """Return the smallest exponent that a node's input may have, so that a residual operand with a
    bound is not cut; `EXPONENT_MIN` where it has no such operand.

    width : W, of the accumulators.   inputs : of the input's mantissas.
    expected : exponents that tensors are likely to have.   bounds : as `bounds` returns them.
    """
    most = bounds.get(node.epilogue.add or "", 0.0)
    if not most:
        return EXPONENT_MIN
    above = int(floor_log2(np.array(most))) + 1
    found = above + 3 - width - int(node.sw.min()) + inputs.fraction
    quiet = max(expected[name] for name in node.inputs) - QUIET
    return max(EXPONENT_MIN, min(found, quiet))
