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
_FAINT = 3
"""Inputs that stay smaller by so many bits are told of."""

UNKNOWN = ("the inputs share one block exponent: give calibration inputs if one is much smaller "
           "than another")


def channels_read(graph: Graph, name: str) -> np.ndarray:
    """Return which channels of a tensor of an optimised graph are read, bool (C,)."""
    shapes = graph.shapes
    found = np.full(shapes[name][0], name == graph.output)
    for node in graph.nodes:
        assert isinstance(node, Conv), f"{node.name}: only optimised graphs have channels"
        if node.epilogue.add == name:
            found[:] = True
        rows = (node.weight != 0).any(axis=(2, 3))
        own = rows.reshape(node.groups, -1, rows.shape[1]).any(axis=1).ravel()
        ends = np.cumsum([shapes[part][0] for part in node.read])
        for part, read in zip(node.read, np.split(own, ends[:-1]), strict=True):
            if part == name:
                found |= read
    return found


def as_read(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """Return inputs (N, *input_shape) as the host stores them: 0 where nothing reads a channel."""
    if not graph.takes:
        return samples
    maps = samples.reshape(len(samples), *graph.input_map)
    read = channels_read(graph, graph.input)[:, None, None]
    return np.where(read, maps, 0).astype(samples.dtype).reshape(samples.shape)


def input_remarks(graph: Graph, samples: np.ndarray | None,
                  larger: Sequence[int]) -> tuple[str, ...]:
    """Return what is told of the tensors that a network takes: which are not read, and which are
    much smaller than another.

    samples : calibration inputs (N, *input_shape).   larger : as `larger_bits` returns them.
    """
    starts = _starts(graph)
    if starts is None:
        return () if samples is not None or not graph.takes else (UNKNOWN,)
    read = np.logical_or.reduceat(channels_read(graph, graph.input), starts)
    told = [f"input {one.name}: nothing reads it; zeros are stored for it"
            for one, known in zip(graph.takes, read, strict=True) if not known]
    if samples is None:
        return (*told, UNKNOWN) if read.sum() > 1 else tuple(told)
    raised = np.array(larger or (0,) * graph.input_map[0])[starts]
    exponents = _exponents(graph, samples, starts) + raised
    smaller = exponents.max() - exponents
    return (*told, *(
        f"input {one.name}: the inputs share one block exponent, and it is 2^{bits} times smaller "
        f"than another; bring the inputs to one size outside the network"
        for one, bits, known in zip(graph.takes, smaller, read, strict=True)
        if known and bits >= _FAINT))


def _starts(graph: Graph) -> np.ndarray | None:
    """Return the first channel of each tensor that an optimised graph takes; None where it takes
    one, or its channels are no longer in their order."""
    if not graph.takes:
        return None
    size, count = size_of(graph.input_shape), graph.input_map[0]
    own = [channels(one.shape, size) for one in graph.takes]
    if count % sum(own):         # its axes have been turned
        return None
    return np.cumsum([0, *own[:-1]]) * (count // sum(own))


def _exponents(graph: Graph, samples: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the exponent of the largest value of each tensor that is taken, int64; of one that is
    always 0, the largest of all."""
    largest = np.abs(samples).max(axis=0).reshape(graph.input_map[0], -1).max(axis=1)
    largest = np.maximum.reduceat(largest, starts)
    return np.asarray(floor_log2(np.where(largest > 0, largest, largest.max() or 1)), np.int64)


def larger_bits(graph: Graph, samples: np.ndarray | None) -> tuple[int, ...]:
    """Return by how many bits each channel of an optimised graph's input is made larger, so that
    the largest values of all tensors that the network takes have one exponent over ``samples``
    (N, *input_shape); () where there is nothing to be done.

    Weights go down as far, and no row of them by more than their exponents reach.
    """
    if samples is None or not graph.takes:
        return ()
    starts = _starts(graph)
    if starts is None:
        return ()
    counts = np.diff([*starts, graph.input_map[0]])
    exponents = _exponents(graph, samples, starts)
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
