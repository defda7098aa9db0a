"""What a float graph computes as it was imported: before any pass, quantisers and all."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from celosia.float_values import Tensors, sums_of, weights_of
from celosia.graph import (
    Activate,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Curve,
    Graph,
    Leaky,
    MaxPool,
    Move,
    Multiply,
    Node,
    Pad,
    Quantise,
    Reshape,
)
from celosia.passes.average_to_linear import average_to_linear
from celosia.passes.leave_quantisers import leave_quantisers
from celosia_sim.golden.epilogue import max_pool
from celosia_spec.host_layers import compute

Padding = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class QuantisedLoss:
    """A program's outputs beside those of the quantised network that it was compiled from; of
    several tensors that this returns, the worst.

    inputs   : that were measured.
    ratio    : signal to noise of the program's outputs, against the quantised network's, dB.
    float_ratio : against those of the same network without the quantisers on the way, dB.
    original : of the quantised network's outputs, against these, dB.
    """

    inputs: int
    ratio: float
    float_ratio: float
    original: float


def is_quantised(graph: Graph) -> bool:
    """Whether an imported graph has quantisers on the way."""
    return any(isinstance(node, Quantise) for node in graph.nodes)


def has_pieces(graph: Graph) -> bool:
    """Whether functions or products of an imported graph are made of straight pieces."""
    return any(isinstance(node, Curve | Multiply) for node in graph.nodes)


def as_imported(imported: Graph, optimised: Graph, values: np.ndarray) -> np.ndarray:
    """Return outputs (N, C, H, W) of an optimised graph as the imported one has them."""
    added = optimised.host[:len(optimised.host) - len(imported.host)]
    raised = np.array(optimised.raised.get(optimised.output, (0,)))[:, None, None]
    own = np.ldexp(values.reshape(len(values), *optimised.shapes[optimised.output]), -raised)
    made = compute(added, own.reshape(len(values), *optimised.output_shape))
    found = made.reshape(len(made), -1).copy()
    for before, after in zip(imported.returns, optimised.returns, strict=True):
        moves = after.host[:len(after.host) - len(before.host)]
        found[:, before.first:before.first + math.prod(before.shape)] = compute(
            moves, after.part(made)).reshape(len(made), -1)
    return found.reshape(made.shape)


def floats(imported: Graph, x: np.ndarray) -> np.ndarray:
    """Return the outputs of an imported graph without its quantisers, float64 (N, C, H, W)."""
    return outputs(leave_quantisers(imported), x)


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Return the outputs of an imported graph, float64 (N, C, H, W).

    x : (N, *input_shape).
    """
    return np.stack([stored[graph.output] for stored in values(graph, x)])


def values(graph: Graph, x: np.ndarray) -> Iterator[Tensors]:
    """Yield the tensors of an imported graph for each of the inputs (N, *input_shape)."""
    graph = average_to_linear(graph)
    for image in np.asarray(x, np.float32).astype(np.float64):
        stored = {graph.input: image.reshape(graph.input_map)}
        for node in graph.nodes:
            stored[node.name] = _result(node, stored)
        yield stored


def _result(node: Node, stored: Tensors) -> np.ndarray:
    """Return what a node makes, (C, H, W), of the tensors so far."""
    x = stored[node.inputs[0]]
    match node:
        case Conv():
            return _convolved(node, x)
        case BatchNorm():
            scaled: np.ndarray = x * node.scale[:, None, None] + node.shift[:, None, None]
            return scaled
        case Activate():
            return x.clip(*node.activation.bounds)
        case Leaky():
            return node(x)
        case Curve():
            return (node.pieces(x) if node.function is None else
                    node.function(x.ravel()).reshape(x.shape))
        case Quantise():
            return node.grid.nearest(x)
        case MaxPool():
            pooled: np.ndarray = max_pool(_padded(x, node.padding, -np.inf)[None], node.pool)[0]
            return pooled
        case Add():
            return x + stored[node.right]
        case Multiply():
            return x * stored[node.right]
        case Pad():
            return _padded(x, node.padding)
        case Reshape():
            return x.reshape(node.shape)
        case Move():
            every = np.concatenate([*(stored[name].ravel() for name in node.inputs), [0.0]])
            moved: np.ndarray = every[node.index]
            return moved
        case AvgPool():
            raise AssertionError(f"{node.name}: average_to_linear leaves none")
    assert_never(node)


def _convolved(node: Conv, x: np.ndarray) -> np.ndarray:
    down, across = node.up
    channels, height, width = x.shape
    apart = np.zeros((channels, (height - 1) * down + 1, (width - 1) * across + 1))
    apart[:, ::down, ::across] = x
    plain = replace(node, padding=(0, 0, 0, 0))
    return sums_of(plain, weights_of(node), {node.input: _padded(apart, node.padding)})


def _padded(x: np.ndarray, padding: Padding, value: float = 0.0) -> np.ndarray:
    """Return a map with a margin, which is cut off where it is below 0."""
    top, left, bottom, right = padding
    around = np.pad(x, ((0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))),
                    constant_values=value)
    _, height, width = around.shape
    return around[:, max(-top, 0):height - max(-bottom, 0), max(-left, 0):width - max(-right, 0)]
