"""BatchNorm goes into the convolution before it, in float64."""

from dataclasses import replace

import numpy as np

from celosia.graph import BatchNorm, Conv, Graph, Node
from celosia.passes.rewriting import ranges_after, rename


def fold_batchnorm(graph: Graph) -> Graph:
    """Scale the rows of the layer before by BatchNorm's scale, and its bias along.

    After: no BatchNorm is left. One that follows no linear node of its own becomes a depthwise
    1 x 1 convolution.
    """
    uses, shapes = graph.uses, graph.shapes
    names: dict[str, str] = {}
    made: dict[str, Node] = {}
    for node in graph.nodes:
        node = rename(node, names)
        if isinstance(node, BatchNorm):
            before = made.get(node.input)
            if isinstance(before, Conv) and uses[node.input] == 1:
                names[node.name] = before.name
                uses[before.name] = uses[node.name]
                node = _fold(before, node)
            else:
                node = _depthwise(node, shapes[node.name][0])
        made[node.name] = node
    return replace(graph, nodes=tuple(made.values()), output=names.get(graph.output, graph.output),
                   ranges=ranges_after(graph, names, set(names.values())))


def _fold(conv: Conv, norm: BatchNorm) -> Conv:
    bias = 0.0 if conv.bias is None else conv.bias
    return replace(conv, weight=conv.weight * norm.scale[:, None, None, None],
                   bias=bias * norm.scale + norm.shift,
                   normed=conv.normed or norm.trained)


def _depthwise(norm: BatchNorm, channels: int) -> Conv:
    return Conv(name=norm.name, input=norm.input, groups=channels, bias=norm.shift,
                weight=np.array(norm.scale, dtype=np.float64).reshape(channels, 1, 1, 1))
