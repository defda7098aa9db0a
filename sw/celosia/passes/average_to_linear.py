"""Average pooling is a linear node whose rows hold the constant 1 / n."""

from dataclasses import replace

import numpy as np

from celosia.graph import AvgPool, Conv, Graph
from celosia_spec.qgraph import NodeKind


def average_to_linear(graph: Graph) -> Graph:
    """Turn every AvgPool into a depthwise convolution of its own kind.

    After: no AvgPool is left.
    """
    shapes = graph.shapes
    return replace(graph, nodes=tuple(
        _linear(node, shapes[node.input][0]) if isinstance(node, AvgPool) else node
        for node in graph.nodes))


def _linear(node: AvgPool, channels: int) -> Conv:
    return Conv(name=node.name, input=node.input, kind=NodeKind.AVERAGE, groups=channels, bias=None,
                weight=np.full((channels, 1, *node.window), 1.0 / node.divisor),
                stride=node.stride, padding=node.padding)
