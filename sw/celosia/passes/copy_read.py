"""Copies of several inputs have those channels alone that something reads."""

from dataclasses import replace

import numpy as np

from celosia.graph import Conv, Graph, Node
from celosia.input_scales import channels_read
from celosia_spec.epilogue import PLAIN
from celosia_spec.qgraph import NodeKind


def copy_read(graph: Graph) -> Graph:
    """Leave channels of a copy of the input at 0 that nothing reads, where the network takes
    several tensors: a larger one would take the bits of a smaller one, which alone is read."""
    if not graph.takes:
        return graph
    return replace(graph, nodes=tuple(_copied(graph, node) for node in graph.nodes))


def _copied(graph: Graph, node: Node) -> Node:
    if (not isinstance(node, Conv) or node.input != graph.input or node.epilogue != PLAIN
            or node.groups != len(node.weight) or not (node.weight == 1).all()):
        return node
    read = channels_read(graph, node.name)
    if read.all():
        return node
    live = np.broadcast_to(read[:, None, None, None], node.weight.shape)
    return replace(node, weight=node.weight * live, live=live.copy(), kind=NodeKind.CONV)
