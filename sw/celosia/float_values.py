"""What an optimised float graph computes, in float64."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import csr_array

from celosia.graph import Conv, Graph
from celosia_sim.golden.epilogue import max_pool
from celosia_sim.golden.linear import columns

Tensors = dict[str, np.ndarray]
"""Float64 (C, H, W) by name, of one input."""

Completion = Callable[[Tensors], tuple[Tensors, Tensors]]


def values(graph: Graph, x: np.ndarray) -> Iterator[tuple[Tensors, Tensors]]:
    """Yield for each input its tensors, and every node's sums before activation and pool.

    x : (N, *input_shape).
    """
    computed = completion(graph)
    for image in np.asarray(x, np.float32).astype(np.float64):
        yield computed({graph.input: image.reshape(graph.input_map)})


def largest(graph: Graph, x: np.ndarray) -> dict[str, float]:
    """Return the largest absolute value of each tensor, over inputs (N, *input_shape)."""
    found = dict.fromkeys(graph.shapes, 0.0)
    for stored, _ in values(graph, x):
        for name, value in stored.items():
            found[name] = max(found[name], float(np.abs(value).max()))
    return found


def completion(graph: Graph) -> Completion:
    """Return a function that takes some tensors of an input, the network's input among them. It
    returns all tensors, and the sums of those nodes whose tensors it was not given."""
    weights = {node.name: weights_of(node) for node in graph.nodes if isinstance(node, Conv)}

    def computed(given: Tensors) -> tuple[Tensors, Tensors]:
        stored, sums = dict(given), {}
        for node in graph.nodes:
            assert isinstance(node, Conv), f"{node.name}: only optimised graphs have values"
            if node.name in given:
                continue
            found = sums_of(node, weights[node.name], stored)
            sums[node.name] = found
            pooled = max_pool(found[None].clip(*node.epilogue.activation.bounds),
                              node.epilogue.pool)[0]
            stored[node.name] = pooled if node.map is None else pooled.reshape(node.map)
        return stored, sums

    return computed


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Return the outputs of all inputs, float64 (N, C, H, W)."""
    return np.stack([stored[graph.output] for stored, _ in values(graph, x)])


def weights_of(node: Conv) -> csr_array:
    """Return the weights over all input channels, (rows, C * kh * kw)."""
    rows, own = len(node.weight), node.weight[0].size
    first = np.arange(rows) // (rows // node.groups) * own
    return csr_array((node.weight.ravel(), (first[:, None] + np.arange(own)).ravel(),
                      np.arange(rows + 1) * own), shape=(rows, own * node.groups))


def sums_of(node: Conv, weights: csr_array, stored: Tensors) -> np.ndarray:
    """Return the sums of a node before activation and pool, (rows, H, W), of what it reads.

    weights : as `weights_of` returns them.
    """
    read = np.concatenate([stored[name] for name in node.read])
    operand, (height, width) = columns(read[None], node.geometry)
    sums: np.ndarray = (weights @ operand).reshape(-1, height, width)
    if node.bias is not None:
        sums = sums + node.bias[:, None, None]
    if node.epilogue.add is not None:
        sums = sums + stored[node.epilogue.add]
    return sums
