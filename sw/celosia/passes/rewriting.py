"""What passes rewrite graphs with: other operands, ranges of what is left, copies, new names."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import count

import numpy as np

from celosia.graph import Add, Conv, Graph, Move, Multiply, Node, Range
from celosia_spec.qgraph import NodeKind


def rename(node: Node, names: dict[str, str]) -> Node:
    """Return the node with its operands replaced as ``names`` says."""
    if isinstance(node, Add | Multiply):
        return replace(node, left=names.get(node.left, node.left),
                       right=names.get(node.right, node.right))
    if isinstance(node, Move):
        return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))
    node = replace(node, input=names.get(node.input, node.input))
    if isinstance(node, Conv):
        node = replace(node, others=tuple(names.get(name, name) for name in node.others))
        if (add := node.epilogue.add) is not None:
            node = replace(node, epilogue=replace(node.epilogue, add=names.get(add, add)))
    return node


def ranges_after(graph: Graph, names: Mapping[str, str],
                 changed: Collection[str] = ()) -> dict[str, Range]:
    """Return a graph's ranges after some tensors are gone.

    names   : of these, in order, to the tensor that is now what each was.
    changed : such tensors that do not lie within what they were before.
    """
    return {names.get(name, name): ends for name, ends in graph.ranges.items()
            if name in names or name not in changed}


def identity(name: str, source: str, channels: int, kind: NodeKind) -> Conv:
    """Return a linear node that copies its input: a depthwise 1 x 1 convolution with weights 1."""
    return Conv(name=name, input=source, weight=np.ones((channels, 1, 1, 1)), bias=None,
                groups=channels, kind=kind, fixed=True)


def fresh(name: str, taken: set[str]) -> str:
    """Return a name behind another that no tensor has, "name.1", and take it."""
    found = next(found for number in count(1) if (found := f"{name}.{number}") not in taken)
    taken.add(found)
    return found
