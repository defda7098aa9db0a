"""The float graph as text, one node a line."""

import math
from typing import assert_never

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
    Node,
    Pad,
    Quantise,
    Reshape,
    Shape,
)
from celosia_spec.epilogue import Activation, Identity

OPERATORS = {BatchNorm: "batch_norm", Leaky: "leaky_relu", MaxPool: "max_pool2d",
             AvgPool: "avg_pool2d", Add: "add", Multiply: "mul", Pad: "pad", Reshape: "reshape",
             Quantise: "quantise"}


def operator(node: Node) -> str:
    """Return the node's operator, as messages name it."""
    if isinstance(node, Activate):
        return node.activation.kind
    if isinstance(node, Curve | Move):
        return node.operator
    return node.kind if isinstance(node, Conv) else OPERATORS[type(node)]


def dump(graph: Graph) -> str:
    """Return the graph as text."""
    shapes = graph.shapes
    lines = [f"{graph.input}: {_shape(shapes[graph.input])} = input"]
    lines += [f"{node.name}: {_shape(shapes[node.name])} = {_describe(node)}"
              for node in graph.nodes]
    lines += [f"return {graph.output}"]
    lines += [f"the host: {layer}" for layer in graph.host]
    lines += [f"{output.name}: {'x'.join(map(str, output.shape))} from {output.first}"
              + "".join(f", {layer}" for layer in output.host) for output in graph.returns]
    return "\n".join(lines) + "\n"


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _bounds(activation: Activation) -> str:
    low, high = activation.bounds
    return "" if high == math.inf else f" {low:g} ... {high:g}"


def _describe(node: Node) -> str:
    text = f"{operator(node)}({', '.join(node.inputs)})"
    match node:
        case Conv():
            text += f" weight {'x'.join(map(str, node.weight.shape))}"
            text += f" nonzeros {np.count_nonzero(node.weight)}"
            for field, default in (("groups", 1), ("stride", (1, 1)), ("padding", (0, 0, 0, 0)),
                                   ("dilation", (1, 1)), ("up", (1, 1))):
                if getattr(node, field) != default:
                    text += f" {field} {getattr(node, field)}"
            if any(node.border):
                text += f" border {[[edge.at for edge in edges] for edges in node.border]}"
            text += " bias" if node.bias is not None else ""
            if node.epilogue.activation != Identity():
                text += f" {node.epilogue.activation.kind}{_bounds(node.epilogue.activation)}"
            if (pool := node.epilogue.pool) is not None:
                text += f" pool {pool.window} stride {pool.stride}"
        case MaxPool():
            text += f" window {node.pool.window} stride {node.pool.stride}"
            text += f" padding {node.padding}" if any(node.padding) else ""
        case AvgPool():
            text += f" window {node.window} stride {node.stride} divisor {node.divisor}"
        case Pad():
            text += f" padding {node.padding}"
        case Quantise():
            text += " to {:g} ... {:g}".format(*node.grid.ends)
        case Activate():
            text += _bounds(node.activation)
        case BatchNorm() | Leaky() | Curve() | Add() | Multiply() | Reshape() | Move():
            pass
        case _:
            assert_never(node)
    return text
