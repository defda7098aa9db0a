"""Channels that only depthwise and average nodes read are made equally large, which is exact."""

from dataclasses import replace

import numpy as np

from celosia.float_values import values
from celosia.graph import Conv, Graph
from celosia_spec.block import floor_log2
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN
from celosia_spec.qgraph import moves_channels

MOST_BITS = 6
"""By so much a channel is raised at most."""


def equalise(graph: Graph, x: np.ndarray) -> Graph:
    """Scale channels by powers of two so far up that the largest value of each, over inputs ``x``
    (N, *input_shape), needs their tensor's exponent; their readers' weights go down as far.

    Tensors that are added to each other, or chosen from each other, are scaled alike. Only those
    are scaled that are read by nothing but nodes of one input channel a row, whose rows have
    exponents of their own, and that no clamp bounds.

    After: the graph computes the same in float64.
    """
    groups = [names for names in _groups(graph) if _free(graph, names)]
    largest = _largest(graph, x, {name for names in groups for name in names})
    raised: dict[str, np.ndarray] = {}
    for names in groups:
        bits = _bits(graph, names, np.max([largest[name] for name in names], axis=0))
        raised |= dict.fromkeys(names, bits)
    return replace(graph, nodes=tuple(_scaled(node, raised) for node in _layers(graph)),
                   raised={**graph.raised, **{name: tuple(bits.tolist())
                                              for name, bits in raised.items() if bits.any()}},
                   ranges={name: ends for name, ends in graph.ranges.items()
                           if name not in raised or not raised[name].any()})


def _layers(graph: Graph) -> list[Conv]:
    return [node for node in graph.nodes if isinstance(node, Conv)]


def _groups(graph: Graph) -> list[set[str]]:
    """Return all tensors, those that have to be scaled alike together."""
    group = {name: {name} for name in graph.shapes}
    for node in _layers(graph):
        alike = [node.epilogue.add] if node.epilogue.add is not None else []
        for name in alike + ([node.input] if node.keeps else []):
            together = group[node.name] | group[name]
            group |= dict.fromkeys(together, together)
    return [names for name, names in group.items() if name == min(names)]


def _free(graph: Graph, names: set[str]) -> bool:
    """Whether nothing but exponents that rows have to themselves depends on a scale of tensors."""
    if names & {graph.input, graph.output}:
        return False
    return all((not names & set(node.read) or _by_channel(node))
               and (node.name not in names or not (node.epilogue.activation.clamps or node.map))
               for node in _layers(graph))


def _by_channel(node: Conv) -> bool:
    """Whether every row reads one channel of one tensor; a row that chooses, the one of its own
    number."""
    return (not node.others and node.weight.shape[1] == 1
            and (not node.keeps or len(node.weight) == node.groups)
            and not moves_channels(node.border))


def _largest(graph: Graph, x: np.ndarray, names: set[str]) -> dict[str, np.ndarray]:
    """Return the largest absolute value of every channel of some tensors, float64 (C,)."""
    found = {name: np.zeros(shape[0]) for name, shape in graph.shapes.items() if name in names}
    for stored, _ in values(graph, x):
        for name, most in found.items():
            np.maximum(most, np.abs(stored[name]).max(axis=(1, 2)), out=most)
    return found


def _bits(graph: Graph, names: set[str], largest: np.ndarray) -> np.ndarray:
    """Return by how many bits each channel is raised, int64 (C,)."""
    exponents = floor_log2(largest)
    bits = np.minimum(exponents.max() - exponents, MOST_BITS)
    for node in _layers(graph):
        if node.keeps:
            continue
        rows = floor_log2(np.abs(node.weight).max(axis=(1, 2, 3)))
        if node.input in names:
            room = np.where(rows < EXPONENT_MIN, MOST_BITS, rows - EXPONENT_MIN)
            bits = np.minimum(bits, room.reshape(node.groups, -1).min(axis=1))
        if node.name in names:
            bias = np.zeros(1) if node.bias is None else node.bias
            bits = np.minimum(bits, EXPONENT_MAX - np.maximum(rows, floor_log2(bias)))
    return np.where(largest == 0, 0, bits.clip(min=0))


def _scaled(node: Conv, raised: dict[str, np.ndarray]) -> Conv:
    """Return a node whose inputs and outputs are raised."""
    if node.keeps:
        return node
    rows, bits = len(node.weight), np.zeros(len(node.weight), np.int64)
    if node.input in raised:
        bits = bits - np.repeat(raised[node.input], rows // node.groups)
    own = raised.get(node.name, np.zeros(rows, np.int64))
    return replace(node, weight=np.ldexp(node.weight, (bits + own)[:, None, None, None]),
                   bias=None if node.bias is None else np.ldexp(node.bias, own))
