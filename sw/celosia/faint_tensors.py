"""What is told of tensors and weights that are smaller than the smallest exponent is for."""

from collections.abc import Iterator, Mapping

import numpy as np

from celosia.calibration import MOST_INPUTS, spread
from celosia.expected import USUAL_DEVIATION, expected_exponents
from celosia.float_values import largest
from celosia.graph import Conv, Graph
from celosia_spec.block import floor_log2
from celosia_spec.isa.numbers import EXPONENT_MIN, OUTPUT_BITS

_TOLD = 3
_LEAST = 3 * EXPONENT_MIN
"""The smallest exponent that is looked at: what is below counts as 0, which is not faint."""


def faint_tensors(graph: Graph, samples: np.ndarray | None, bits: int) -> tuple[str, ...]:
    """Return a line on the tensors, and on the weights, of which bits are lost because no exponent
    is as small; none where there are none.

    graph   : an optimised float graph.   bits : of the mantissas of tensors.
    samples : calibration inputs (N, *input_shape), of which some are looked at; without, what is
              expected of usual inputs counts.
    """
    found = (expected_exponents(graph, USUAL_DEVIATION, _LEAST) if samples is None
             else {name: int(floor_log2(np.array(most))) for name, most in largest(
                 graph, spread(samples, MOST_INPUTS)).items()})
    faint = [(what, exponent, lost) for what, exponent, lost in _lost(graph, found, bits)
             if lost > 0 and exponent > _LEAST]
    if not faint:
        return ()
    told = [f"{what} of about 2^{exponent}" for what, exponent, _ in faint]
    more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    most = max(lost for _, _, lost in faint)
    source = "expected" if samples is None else "calibrated"
    return (f"no exponent is below {EXPONENT_MIN}, so up to {most} bits are lost of "
            f"{', '.join(told[:_TOLD])}{more} ({source}); make these 2^{most} times as large in "
            f"the model, or train it with normalisation",)


def _lost(graph: Graph, found: Mapping[str, int], bits: int) -> Iterator[tuple[str, int, int]]:
    """Yield tensors and weights, their exponents, and how many bits of them may be lost. What is
    added to larger numbers loses nothing by it."""
    layers = [node for node in graph.nodes if isinstance(node, Conv)]
    for name, exponent in found.items():
        spare = OUTPUT_BITS - bits if name == graph.output else 0
        if any(name in node.read for node in layers) or name == graph.output or any(
                node.epilogue.add == name and found.get(node.name, _LEAST) < EXPONENT_MIN
                for node in layers):
            yield f"numbers in {name}", exponent, EXPONENT_MIN - exponent - spare
    for node in layers:
        exponent = int(floor_log2(np.abs(node.weight).max()))
        if node.epilogue.add is None or found.get(node.epilogue.add, _LEAST) < EXPONENT_MIN:
            yield f"weights of {node.name}", exponent, EXPONENT_MIN - exponent
