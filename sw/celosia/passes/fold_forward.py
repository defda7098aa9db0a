"""BatchNorm goes into the layer behind it where none stands before it, in float64."""

from dataclasses import replace

import numpy as np

from celosia.graph import Activate, Add, BatchNorm, Conv, Graph, Node, Pad, Reshape
from celosia.passes.rewriting import rename

SPREAD = 2.0
"""Most that the scales of two channels may differ by: it costs a bit of a weight's mantissa."""


def fold_forward(graph: Graph) -> Graph:
    """Scale the columns of the layer behind by BatchNorm's scale, and add its shift to the bias.

    So a network that normalises its own input, (x - mean) / deviation, has no layer and no
    rounding more. Only where that is exact: the layer alone reads the result, at most flattened
    or padded before, and puts no zeros around what was shifted. And only where it costs little
    precision, as a row's weights share one exponent: scales differ by `SPREAD` at most, unless
    the map was flattened, where nothing else is possible. A BatchNorm behind a convolution of its
    own is left to `fold_batchnorm`.
    """
    for name in [node.name for node in reversed(graph.nodes) if isinstance(node, BatchNorm)]:
        norm = _made(graph)[name]
        assert isinstance(norm, BatchNorm)
        path = [] if _has_layer_before(graph, norm) else _path(graph, norm)
        folded = _folded(graph, norm, path) if path else None
        if folded is not None:
            graph = replace(graph, nodes=tuple(
                rename(folded if node.name == folded.name else node, {name: norm.input})
                for node in graph.nodes if node.name != name))
    return graph


def _made(graph: Graph) -> dict[str, Node]:
    return {node.name: node for node in graph.nodes}


def _has_layer_before(graph: Graph, norm: BatchNorm) -> bool:
    """Whether a layer alone makes what is normalised, at most a vector that was reshaped and is one
    again."""
    made, uses, name = _made(graph), graph.uses, norm.input
    while isinstance(node := made.get(name), Reshape) and uses[name] == 1:
        name = node.input
    return (isinstance(node, Conv) and uses[name] == 1
            and graph.shapes[name] == graph.shapes[norm.name])


def _path(graph: Graph, norm: BatchNorm) -> list[Reshape | Pad | Conv]:
    """Return the nodes from ``norm`` to the convolution that alone reads it; [] if there is none.
    """
    path: list[Reshape | Pad | Conv] = []
    name, uses = norm.name, graph.uses
    while uses[name] == 1 and name != graph.output:
        reader = next(node for node in graph.nodes if name in node.inputs)
        if not isinstance(reader, (Reshape, Pad, Conv)):
            return []
        path.append(reader)
        if isinstance(reader, Conv):
            return path
        name = reader.name
    return []


def _folded(graph: Graph, norm: BatchNorm, path: list[Reshape | Pad | Conv]) -> Conv | None:
    """Return the convolution with the BatchNorm in it; None where that is not exact or not wise."""
    shapes = graph.shapes
    scale, shift = (np.broadcast_to(vector[:, None, None], shapes[norm.name])
                    for vector in (norm.scale, norm.shift))
    reader = path[-1]
    assert isinstance(reader, Conv)
    for node in path[:-1]:
        if isinstance(node, Pad):
            top, left, bottom, right = node.padding
            scale, shift = (np.pad(array, ((0, 0), (top, bottom), (left, right)), mode="edge")
                            for array in (scale, shift))
        if isinstance(node, Reshape):
            scale, shift = scale.reshape(node.shape), shift.reshape(node.shape)
    padded = any(isinstance(node, Pad) for node in path) or any(reader.padding) or (
        reader.up != (1, 1))
    by_channel = all(np.all(array == array[:, :1, :1]) for array in (scale, shift))
    if not by_channel or (padded and np.any(shift)):
        return None
    size = np.abs(norm.scale)
    if size.max() > SPREAD * size.min() and not _is_flat(graph, norm.input):
        return None
    return _scaled(reader, scale[:, 0, 0], shift[:, 0, 0])


def _is_flat(graph: Graph, name: str) -> bool:
    """Whether a tensor is a map of several places that readers take for a vector."""
    made, shapes = _made(graph), graph.shapes
    while isinstance(node := made.get(name), (BatchNorm, Activate, Add, Reshape)):
        if isinstance(node, Reshape) and shapes[node.input] != node.shape:
            return node.shape[1:] == (1, 1) and node.input != graph.input
        name = node.inputs[0]
    return False


def _scaled(conv: Conv, scale: np.ndarray, shift: np.ndarray) -> Conv:
    """Return ``conv(x * scale + shift)`` as one convolution of x; scale, shift : (C,)."""
    rows, own = conv.weight.shape[:2]
    group = np.arange(rows) // (rows // conv.groups)
    channels = group[:, None] * own + np.arange(own)
    bias = np.zeros(rows) if conv.bias is None else conv.bias
    return replace(conv, weight=conv.weight * scale[channels][:, :, None, None],
                   bias=bias + np.einsum("roij,ro->r", conv.weight, shift[channels]))
