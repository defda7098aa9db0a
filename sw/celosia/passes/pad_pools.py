"""Padding of max pools becomes zeros where no maximum is below 0, else elements of the map."""

from dataclasses import replace
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
from celosia.passes.rewriting import identity
from celosia_spec.qgraph import NodeKind


def pad_pools(graph: Graph) -> Graph:
    """Let a layer with weights 1 choose what a padded max pool compares, with zeros around, or with
    the map's outermost elements.

    After: no MaxPool has padding. A zero is no larger than the largest of numbers that are not
    below 0; and where only ReLUs read the pool, nothing else is seen of what is. A window that
    looks beyond the map looks at its edge as well: an element of that makes no difference.
    """
    names = {graph.input} | {node.name for node in graph.nodes}
    shapes = graph.shapes
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, MaxPool) and any(node.padding):
            source = f"{node.name}.padded"
            while source in names:
                source += "_"
            names.add(source)
            zeros = _is_positive(graph, node.input) or _is_clamped(graph, node.name)
            nodes.append((_with_zeros if zeros else _with_edges)(node, source, shapes[node.input]))
            node = replace(node, input=source, padding=(0, 0, 0, 0))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _with_zeros(node: MaxPool, name: str, shape: Shape) -> Node:
    return replace(identity(name, node.input, shape[0], NodeKind.SELECT), padding=node.padding)


def _with_edges(node: MaxPool, name: str, shape: Shape) -> Node:
    top, left, bottom, right = node.padding
    index = np.arange(shape[0] * shape[1] * shape[2]).reshape(shape)
    return Move(name=name, inputs=(node.input,), operator="max_pool2d",
                index=np.pad(index, ((0, 0), (top, bottom), (left, right)), mode="edge"),
                remedy="put a ReLU before it or behind it, or use padding=0 and ceil_mode=False")


def _is_positive(graph: Graph, name: str) -> bool:
    """Whether no element of a tensor is below 0, for all inputs."""
    node = next((node for node in graph.nodes if node.name == name), None)
    match node:
        case Activate():
            return node.activation.bounds[0] >= 0 or _is_positive(graph, node.input)
        case MaxPool() | Pad() | Reshape() | Add() | Move():
            return all(_is_positive(graph, other) for other in node.inputs)
        case Conv():        # an average
            return (node.kind == NodeKind.AVERAGE and bool((node.weight >= 0).all())
                    and (node.bias is None or bool((node.bias >= 0).all()))
                    and _is_positive(graph, node.input))
        case None | BatchNorm() | Leaky() | Curve() | AvgPool() | Multiply() | Quantise():
            return False
        case _:
            assert_never(node)


def _is_clamped(graph: Graph, name: str) -> bool:
    """Whether nothing but ReLUs, and clamps from 0 on, reads a tensor, at most behind more pools
    that pad nothing or are such themselves."""
    if name == graph.output:
        return False
    readers = [node for node in graph.nodes if name in node.inputs]
    return all(node.activation.bounds[0] == 0 if isinstance(node, Activate) else
               isinstance(node, MaxPool) and _is_clamped(graph, node.name) for node in readers)
