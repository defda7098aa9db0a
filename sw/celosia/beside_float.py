"""What a quantised graph stores of inputs, beside what the float graph computes of them."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from celosia.float_values import Tensors, completion
from celosia.graph import Graph
from celosia_sim import golden
from celosia_spec.qgraph import QGraph, QTensor

_BLOCK = 8
"""So many inputs are computed at once."""


def decibels(signal: float, noise: float) -> float:
    """Return the ratio of two energies, dB; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def tensors(graph: Graph, quantised: QGraph, x: np.ndarray,
            ) -> Iterator[tuple[Tensors, Tensors, Tensors]]:
    """Yield the tensors of each of the inputs (N, *input_shape): in float, as the machine stores
    them, at the float graph's size, and their mantissas, whole ones of a wide input."""
    computed = completion(graph)
    for first in range(0, len(x), _BLOCK):
        block = np.asarray(x[first:first + _BLOCK], np.float32)
        result = golden.run(quantised, block)
        own = {name: quantised.tensors[name] for name in graph.shapes}
        whole = {name: tensor.joined(result.mantissas[name]) for name, tensor in own.items()}
        units = {name: _units(tensor, result.exponents[name], graph.raised.get(name, (0,)))
                 for name, tensor in own.items()}
        for at, image in enumerate(block.astype(np.float64)):
            wanted, _ = computed({graph.input: image.reshape(graph.input_map)})
            mantissas = {name: m[at] for name, m in whole.items()}
            yield wanted, {name: np.ldexp(m.astype(np.float64), units[name][at])
                           for name, m in mantissas.items()}, mantissas


def _units(tensor: QTensor, exponents: np.ndarray, before: Sequence[int]) -> np.ndarray:
    """Return exponents of the float graph's unit of a tensor's mantissas, int64 (N, C or 1, 1, 1).

    before : bits by which its channels are raised in the float graph, too.
    """
    raised = tensor.larger - np.array(before)[:, None, None]
    return np.asarray(tensor.whole.lsb(exponents)[:, None, None, None] - raised)


def energies(graph: Graph, quantised: QGraph, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return signal and noise of every tensor over inputs (N, *input_shape), float64 (2,)."""
    found = {name: np.zeros(2) for name in graph.shapes}
    for wanted, stored, _ in tensors(graph, quantised, x):
        for name, sums in found.items():
            sums += (np.square(wanted[name]).sum(),
                     np.square(stored[name] - wanted[name]).sum())
    return found


def ratios(energies: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return signal to noise of tensors of such energies, dB."""
    return {name: decibels(*map(float, sums)) for name, sums in energies.items()}
