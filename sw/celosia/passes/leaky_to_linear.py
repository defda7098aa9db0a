"""LeakyReLU and PReLU are linear nodes that read their input and its ReLU."""

from dataclasses import replace

import numpy as np

from celosia.graph import Activate, Conv, Graph, Leaky, Move, Node, fresh
from celosia_spec.epilogue import Relu


def leaky_to_linear(graph: Graph) -> Graph:
    """Turn ``max(x, 0) + slope * min(x, 0)`` into ``(1 - slope) * max(x, 0) + slope * x``: one
    layer of two weights a row.

    After: no Leaky is left.
    """
    shapes, taken = graph.shapes, {graph.input} | {node.name for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node, Leaky):
            nodes.append(node)
            continue
        relu, both = fresh(node.name, taken), fresh(node.name, taken)
        shape = shapes[node.input]
        place = np.arange(shape[0] * shape[1] * shape[2]).reshape(shape)
        nodes += [
            Activate(name=relu, input=node.input, activation=Relu()),
            Move(name=both, inputs=(node.input, relu), operator="leaky_relu",
                 index=np.stack([place, place + place.size], axis=1).reshape(-1, *shape[1:]),
                 remedy="replace it with ReLU and train the model again"),
            Conv(name=node.name, input=both, bias=None, groups=shape[0], weight=np.stack(
                [node.slope, 1 - node.slope], axis=1)[:, :, None, None])]
    return replace(graph, nodes=tuple(nodes))
