"""Quantisers disappear: the array rounds to its own format."""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

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
    Range,
    Reshape,
)
from celosia.passes.rewriting import rename
from celosia_spec.epilogue import Relu


def leave_quantisers(graph: Graph) -> Graph:
    """Leave all quantisers out, and note the ranges of what they read.

    After: no Quantise is left. One that lets nothing below 0 through of sums is a ReLU. Of several
    that read a tensor the range is that of all together; what one lets through of another's numbers
    is not asked. What is cut off the largest of some elements, or of elements in another shape, may
    as well be cut off these.
    """
    names: dict[str, str] = {}
    ranges: dict[str, Range] = {}
    nodes: list[Node] = []
    made = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        if not isinstance(node, Quantise):
            nodes.append(rename(node, names))
            continue
        if node.grid.ends[0] >= 0 and _goes_below(made, node.input):
            nodes.append(rename(Activate(name=node.name, input=node.input, activation=Relu()),
                                names))
            ranges[node.name] = node.grid.ends
            continue
        names[node.name] = names.get(node.input, node.input)
        if node.input not in names:
            (low, high), known = node.grid.ends, ranges.get(node.input, node.grid.ends)
            ranges[node.input] = min(low, known[0]), max(high, known[1])
    left = replace(graph, nodes=tuple(nodes), output=names.get(graph.output, graph.output))
    uses = left.uses
    for node in reversed(nodes):
        if isinstance(node, Reshape | MaxPool) and node.name in ranges and uses[node.input] == 1:
            ranges.setdefault(node.input, ranges[node.name])
    return replace(left, ranges=ranges)


def _goes_below(made: Mapping[str, Node], name: str) -> bool:
    """Whether a tensor that the network computes may have elements below 0."""
    node = made.get(name)       # None: the input, which nothing is cut off
    match node:
        case None:
            return False
        case Activate() if node.activation.bounds[0] >= 0:
            return False
        case Quantise() if node.grid.ends[0] >= 0:
            return False
        case Conv() | BatchNorm() | Leaky() | Curve():
            return True
        case (Activate() | Quantise() | MaxPool() | AvgPool() | Add() | Multiply() | Pad()
              | Reshape() | Move()):
            return any(_goes_below(made, other) for other in node.inputs)
        case _:
            assert_never(node)
