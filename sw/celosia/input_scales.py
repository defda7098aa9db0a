"""Several inputs made equally large, in powers of two, before they share a block exponent."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from celosia.graph import Conv, Graph, Node
from celosia_spec.block import floor_log2
from celosia_spec.isa.numbers import EXPONENT_MIN
from celosia_spec.network_inputs import channels, size_of
from celosia_spec.qgraph import NodeKind

MOST_BITS = 10
"""By so much an input is made larger at most."""


def larger_bits(graph: Graph, samples: np.ndarray | None) -> tuple[int, ...]:
    """Return by how many bits each channel of an optimised graph's input is made larger, so that
    the largest values of all tensors that the network takes have one exponent over ``samples``
    (N, *input_shape); () where there is nothing to be done.

    Weights go down as far, and no row of them by more than their exponents reach.
    """
    if samples is None or not graph.takes:
        return ()
    size = size_of(graph.input_shape)
    count = graph.input_map[0]
    own = sum(channels(one.shape, size) for one in graph.takes)
    if count % own:         # its axes have been turned
        return ()
    counts = [channels(one.shape, size) * (count // own) for one in graph.takes]
    largest = np.abs(samples).max(axis=0).reshape(count, -1).max(axis=1)
    starts = np.cumsum([0, *counts[:-1]])
    exponents = floor_log2(np.maximum.reduceat(largest, starts))
    bits = np.minimum(exponents.max() - exponents, MOST_BITS)
    bits = np.minimum(bits, _room(graph, starts))
    found = np.repeat(bits.clip(min=0), counts)
    return tuple(found.tolist()) if found.any() else ()


def _room(graph: Graph, starts: np.ndarray) -> np.ndarray:
    """Return by how many bits the weights of each tensor that is taken may go down."""
    largest = np.zeros(graph.input_map[0])
    for node in graph.nodes:
        if isinstance(node, Conv) and node.input == graph.input:
            rows = np.abs(node.weight).max(axis=(2, 3))
            if node.groups == 1:
                largest = np.maximum(largest, rows.max(axis=0))
            else:
                largest = np.maximum(largest, rows.max())
    exponents = floor_log2(np.maximum.reduceat(largest, starts))
    return np.where(exponents < EXPONENT_MIN, MOST_BITS, exponents - EXPONENT_MIN)


def with_larger_input(graph: Graph, bits: Sequence[int]) -> Graph:
    """Return an optimised graph for an input whose channels are larger by so many bits. Its range
    is not known then, but by the calibration inputs that say so."""
    if not bits:
        return graph
    ranges = {name: ends for name, ends in graph.ranges.items() if name != graph.input}
    return replace(graph, ranges=ranges, nodes=tuple(
        _smaller(node, np.array(bits)) if node.inputs[0] == graph.input else node
        for node in graph.nodes))


def _smaller(node: Node, bits: np.ndarray) -> Conv:
    """Return a layer with weights that are smaller by so many bits for each input channel."""
    assert isinstance(node, Conv)
    own = bits.reshape(node.groups, -1) if node.groups > 1 else bits[None]
    rows = np.repeat(own, len(node.weight) // node.groups, axis=0)
    kind = NodeKind.CONV if node.keeps else node.kind
    return replace(node, weight=np.ldexp(node.weight, -rows[:, :, None, None]), kind=kind)
