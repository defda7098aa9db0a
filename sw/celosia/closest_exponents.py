"""Static exponents that may clip, where that makes less noise than coarser mantissas do."""

import numpy as np

from celosia.float_values import values
from celosia.graph import Graph
from celosia_spec.qgraph import QGraph

LOWER = 4
"""So many exponents are tried of each tensor, from the largest down."""


def closest_exponents(graph: Graph, quantised: QGraph, largest: dict[str, int],
                      x: np.ndarray) -> dict[str, int]:
    """Return for each tensor the exponent at which its mantissas are nearest to the float graph's
    values of inputs ``x`` (N, *input_shape), in the mean of squares; of the output the largest.

    largest : the exponents with which nothing is clipped.
    """
    noise = {name: np.zeros(LOWER) for name in graph.shapes if name != graph.output}
    for stored, _ in values(graph, x):
        for name, sums in noise.items():
            sums += [_noise(quantised, name, stored[name], largest[name] - lower)
                     for lower in range(LOWER)]
    return largest | {name: largest[name] - int(sums.argmin()) for name, sums in noise.items()}


def _noise(graph: QGraph, name: str, value: np.ndarray, exponent: int) -> float:
    """Return the energy by which a tensor's mantissas at an exponent miss its value; infinite
    where it cannot have the exponent."""
    tensor = graph.tensors[name]
    if name == graph.input:
        value = np.ldexp(value, tensor.larger)
    if exponent < tensor.exponent.least:
        return np.inf
    m, _ = tensor.whole.mantissas(value[None], np.array([exponent]))
    made = np.ldexp(m[0].astype(np.float64), int(tensor.whole.lsb(np.array(exponent))))
    return float(np.square(made - value).sum())
