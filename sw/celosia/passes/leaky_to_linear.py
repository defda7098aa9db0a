"""LeakyReLU, PReLU and clamps at a bound are linear nodes that read their input and a ReLU."""

from dataclasses import replace

import numpy as np

from celosia.graph import Activate, BatchNorm, Conv, Graph, Leaky, Move, Node
from celosia.passes.rewriting import fresh
from celosia_spec.block import bfp
from celosia_spec.epilogue import Relu

_OFF = 0.05
"""Share by which a slope is another than asked for before that is told."""


def slope_remarks(graph: Graph, weight_bits: int) -> list[str]:
    """Return a line for each layer whose slope its row of two weights does not hold well."""
    told = []
    for node in graph.nodes:
        if isinstance(node, Leaky):
            mantissas, exponents = bfp(np.stack([node.slope, 1 - node.slope], axis=1), weight_bits,
                                       axis=0)
            found = np.ldexp(mantissas[:, 0].astype(np.float64), exponents - (weight_bits - 2))
            off = np.abs(found - node.slope) - _OFF * np.abs(node.slope)
            if off.max() > 0:
                worst = int(off.argmax())
                told.append(f"{node.name}: its slope {node.slope[worst]:.3g} becomes "
                            f"{found[worst]:.3g} with {weight_bits}-bit weights; where many of "
                            "its inputs are on that side, train with a larger one, such as 0.125")
    return told


def leaky_to_linear(graph: Graph) -> Graph:
    """Turn ``max(x, 0) + slope * min(x, 0)`` into ``(1 - slope) * max(x, 0) + slope * x``: one
    layer of two weights a row. About a knee, ``x + (1 - slope) * max(knee - x, 0)``, or with the
    line above it ``x - (1 - slope) * max(x - knee, 0)``: a knee far away takes no bits of x.

    After: no Leaky is left.
    """
    shapes, taken = graph.shapes, {graph.input} | {node.name for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node, Leaky):
            nodes.append(node)
            continue
        relu, both = fresh(node.name, taken), fresh(node.name, taken)
        source, weights = node.input, [node.slope, 1 - node.slope]
        if node.knee:
            source, one = fresh(node.name, taken), np.ones(shapes[node.input][0])
            sign = one if node.above else -one
            weights = [one, (node.slope - 1) * sign]
            nodes.append(BatchNorm(name=source, input=node.input, scale=sign,
                                   shift=-sign * node.knee))
        shape = shapes[node.input]
        place = np.arange(shape[0] * shape[1] * shape[2]).reshape(shape)
        nodes += [
            Activate(name=relu, input=source, activation=Relu()),
            Move(name=both, inputs=(node.input, relu), operator="leaky_relu",
                 index=np.stack([place, place + place.size], axis=1).reshape(-1, *shape[1:]),
                 remedy="replace it with ReLU and train the model again"),
            Conv(name=node.name, input=both, bias=None, groups=shape[0], weight=np.stack(
                weights, axis=1)[:, :, None, None], fixed=node.fixed)]
    return replace(graph, nodes=tuple(nodes))
