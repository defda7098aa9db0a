"""An interpreter of float graphs that knows no fusion. Every file of tests may import it."""

from dataclasses import replace

import numpy as np

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
    Pad,
    Reshape,
    node_shape,
)
from celosia_spec.epilogue import Epilogue, Pool
from celosia_spec.host_layers import compute
from celosia_spec.qgraph import Border, Edge


def windows(x: np.ndarray, node, shape: tuple[int, int, int]):
    """Yield (row position, column position, window of the padded map) of a sliding node."""
    kernel, stride = (node.kernel, node.stride) if isinstance(node, Conv) else (
        node.window, node.stride)
    dilation = getattr(node, "dilation", (1, 1))
    top, left, bottom, right = getattr(node, "padding", (0, 0, 0, 0))
    x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    for y in range(shape[1]):
        for z in range(shape[2]):
            rows = y * stride[0] + np.arange(kernel[0]) * dilation[0]
            cols = z * stride[1] + np.arange(kernel[1]) * dilation[1]
            yield y, z, x[:, rows[:, None], cols]


def bordered(x: np.ndarray, border: Border) -> np.ndarray:
    """Return a map (C, H, W), element by element, with what stands around it."""
    count, height, width = x.shape
    own = [[*before, *(Edge(at) for at in range(size)), *behind] for before, size, behind in
           ((border[0], height, border[2]), (border[1], width, border[3]))]
    found = np.empty((count, len(own[0]), len(own[1])))
    for y, line in enumerate(own[0]):
        for z, column in enumerate(own[1]):
            for c in range(count):
                there = column.channels[c] if column.channels else c
                there = line.channels[there] if line.channels else there
                found[c, y, z] = x[there, line.at, column.at]
    return found


def max_pool(x: np.ndarray, node, pool: Pool | None) -> np.ndarray:
    if pool is None:
        return x
    shape = node_shape(MaxPool(name="p", input="x", pool=pool), {"x": x.shape})
    result = np.empty(shape)
    for y, z, window in windows(x, pool, shape):
        result[:, y, z] = window.max(axis=(1, 2))
    return result


def interpret(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Return the graph's output for one image, in float64, flattened, with what the host does to
    it."""
    values = {graph.input: x.reshape(graph.input_map)}
    for node in graph.nodes:
        first = values[node.inputs[0]]
        plain = replace(node, epilogue=Epilogue(), map=None) if isinstance(node, Conv) else node
        shape = node_shape(plain, {name: v.shape for name, v in values.items()})
        result = np.zeros(shape)
        match node:
            case Conv():
                own, rows = node.weight.shape[1], node.weight.shape[0] // node.groups
                first = bordered(np.concatenate([values[name] for name in node.read]), node.border)
                if node.up != (1, 1):
                    between = np.zeros((len(first), *((size - 1) * apart + 1 for size, apart in zip(
                        first.shape[1:], node.up, strict=True))))
                    between[:, ::node.up[0], ::node.up[1]] = first
                    first = between
                for y, z, window in windows(first, node, shape):
                    for g in range(node.groups):
                        part = node.weight[g * rows:(g + 1) * rows]
                        result[g * rows:(g + 1) * rows, y, z] = np.tensordot(
                            part, window[g * own:(g + 1) * own], 3)
                if node.bias is not None:
                    result += node.bias[:, None, None]
                after = node.epilogue
                result = result if after.add is None else result + values[after.add]
                result = max_pool(result.clip(*after.activation.bounds), node, after.pool)
                result = result.reshape(node.map or result.shape)
            case AvgPool():
                for y, z, window in windows(first, node, shape):
                    result[:, y, z] = window.sum(axis=(1, 2)) / node.divisor
            case BatchNorm():
                result = first * node.scale[:, None, None] + node.shift[:, None, None]
            case Activate():
                result = first.clip(*node.activation.bounds)
            case Leaky():
                bent = node.knee + (first - node.knee) * node.slope[:, None, None]
                result = np.where((first > node.knee) != node.above, first, bent)
            case Curve():
                result = node.pieces(first)
            case MaxPool():
                top, left, bottom, right = node.padding
                first = np.pad(first, ((0, 0), (top, bottom), (left, right)),
                               constant_values=-np.inf)
                result = max_pool(first, node, node.pool)
            case Add():
                result = first + values[node.right]
            case Multiply():
                result = first * values[node.right]
            case Pad():
                top, left, bottom, right = node.padding
                result = np.pad(first, ((0, 0), (top, bottom), (left, right)))
            case Reshape():
                result = first.reshape(node.shape)
            case Move():
                every = np.concatenate([*(values[name].ravel() for name in node.inputs), [0.0]])
                result = every[node.index]
            case _:
                raise AssertionError(node)
        values[node.name] = result
    output = values[graph.output].reshape(1, *graph.output_shape)
    return compute(graph.host, output).ravel()
