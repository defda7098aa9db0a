"""Exponents that may clip, where that makes less noise than coarser mantissas do."""

import numpy as np

from celosia.float_values import values
from celosia.graph import Graph
from celosia.weight_matrix import row_parts
from celosia_spec.block import Format, block_exponents
from celosia_spec.isa.numbers import EXPONENT_MIN
from celosia_spec.qgraph import QGraph

LOWER = 4
"""So many exponents are tried of each tensor, and of each row, from the largest down."""


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


def clipped_rows(weight: np.ndarray, bits: int) -> np.ndarray:
    """Return weights, float64 (rows, ...), each row clipped to what mantissas of so many bits hold
    at the exponent at which they are nearest to it, in the mean of squares."""
    rows, format = weight.reshape(len(weight), -1), Format(bits=bits)
    found = rows.copy()
    for part in row_parts(*rows.shape):
        own = block_exponents(rows[part])
        tried = own - np.arange(LOWER)[:, None]
        noise = np.stack([_row_noise(rows[part], exponents, format) for exponents in tried])
        lower = np.where(tried < EXPONENT_MIN, np.inf, noise).argmin(axis=0)
        largest = np.ldexp(float(format.largest), format.lsb(own - lower))
        largest[lower == 0] = np.inf
        found[part] = rows[part].clip(-largest[:, None], largest[:, None])
    return found.reshape(weight.shape)


def _row_noise(rows: np.ndarray, exponents: np.ndarray, format: Format) -> np.ndarray:
    """Return the energy by which the mantissas of each row miss it."""
    m, _ = format.mantissas(rows, exponents)
    made = np.ldexp(m.astype(np.float64), format.lsb(exponents)[:, None])
    noise: np.ndarray = np.square(made - rows).sum(axis=1)
    return noise
