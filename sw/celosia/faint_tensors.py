"""What is told of tensors and weights that are smaller than the smallest exponent is for."""

import math
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
    added to larger numbers, a bias among them, loses nothing by it, and nor does what only such
    is made of."""
    layers = [node for node in graph.nodes if isinstance(node, Conv)]
    spare = {graph.output: OUTPUT_BITS - bits}
    counts = {graph.output}
    for node in reversed(layers):
        name, add = node.name, node.epilogue.add
        if name not in counts or found[name] <= _LEAST:
            continue
        limit = found[name] - spare.get(name, 0)
        grows = int(floor_log2(np.abs(node.weight).sum(axis=(1, 2, 3)).max()))
        counts |= {read for read in node.read
                   if found[read] >= EXPONENT_MIN or limit <= EXPONENT_MIN + grows}
        if add is not None and (found[add] >= EXPONENT_MIN or found[name] < EXPONENT_MIN):
            counts.add(add)
    for name, exponent in found.items():
        if name in counts:
            yield f"numbers in {name}", exponent, EXPONENT_MIN - exponent - spare.get(name, 0)
    for node in layers:
        name, add = node.name, node.epilogue.add
        exponent = int(floor_log2(np.abs(node.weight).max()))
        grows = max(found[read] for read in node.read) + math.frexp(node.weight[0].size)[1] - 1
        if (name in counts and EXPONENT_MIN + grows >= found[name] - spare.get(name, 0)
                and (add is None or found[add] < EXPONENT_MIN)):
            yield f"weights of {name}", exponent, EXPONENT_MIN - exponent
