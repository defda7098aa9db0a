"""Functions that are no straight lines are clamped linear nodes, a row a piece, and their sum."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np

from celosia.graph import Activate, Add, BatchNorm, Conv, Curve, Graph, Leaky, Node, rename
from celosia_spec.epilogue import Relu, within


def curve_to_linear(graph: Graph) -> Graph:
    """Turn the pieces of a curve, whose rest goes up by ``rise`` from one knot to the next, into
    the sum of ``rise * clamp((x - knot) / (next - knot), 0, 1)``: only the piece that x lies in is
    rounded, all others are 0 or 1. The ends are added to that.

    After: no Curve is left; the layer that adds the pieces has its name.
    """
    shapes, names = graph.shapes, {graph.input} | {node.name for node in graph.nodes}
    nodes: list[Node] = []
    sources, now = dict(graph.sources), dict[str, str]()

    def fresh(name: str) -> Iterator[str]:
        for number in count(1):
            if (found := f"{name}.{number}") not in names:
                names.add(found)
                yield found

    for node in graph.nodes:
        channels = shapes[node.inputs[0]][0]
        node = rename(node, now)
        if not isinstance(node, Curve):
            nodes.append(node)
            continue
        parts = _parts(node, channels, fresh(node.name))
        now[node.name] = parts[-1].name
        if node.name in sources:
            sources |= {part.name: sources[node.name] for part in parts}
        nodes += parts
    return replace(graph, nodes=tuple(nodes), sources=sources,
                   output=now.get(graph.output, graph.output))


def _parts(node: Curve, channels: int, names: Iterator[str]) -> list[Node]:
    pieces = node.pieces
    ends = _ends(node, np.ones(channels), names)
    end = ends[-1].name if ends else node.input
    straight = pieces.below or pieces.above
    if len(pieces.knots) == 1:
        return [*ends, BatchNorm(name=node.name, input=end,
                                 shift=np.full(channels, pieces.values[0]),
                                 scale=np.full(channels, 1.0 if straight else 0.0))]
    rest = _rest(node, channels, next(names), next(names))
    return [*ends, *rest, Add(name=next(names), left=node.name, right=end)] if straight else rest


def _ends(node: Curve, one: np.ndarray, names: Iterator[str]) -> list[Node]:
    """Return the nodes that make ``above * max(x, 0) + below * min(x, 0)``; none where that is x,
    or 0.

    one : float64 (channels,), ones.
    """
    below, above = node.pieces.below, node.pieces.above
    nodes: list[Node] = []

    def last() -> str:
        return nodes[-1].name if nodes else node.input

    def scale(factor: float) -> None:
        if factor != 1:
            nodes.append(BatchNorm(name=next(names), input=last(), scale=factor * one,
                                   shift=0 * one))

    def rectify() -> None:
        nodes.append(Activate(name=next(names), input=last(), activation=Relu()))

    if below == above:
        if above:
            scale(above)
    elif above:
        if below:
            nodes.append(Leaky(name=next(names), input=last(), slope=below / above * one))
        else:
            rectify()
        scale(above)
    else:
        scale(-1)
        rectify()
        scale(-below)
    return nodes


def _rest(node: Curve, channels: int, inner: str, outer: str) -> list[Node]:
    """Return the nodes that make the rest; ``inner`` and ``outer`` are the first two. Rows of one
    channel follow each other."""
    knots, values = node.pieces.knots, node.pieces.values
    scale = 1 / np.diff(knots)
    return [
        Conv(name=inner, input=node.input, groups=channels,
             weight=np.tile(scale, channels)[:, None, None, None],
             bias=np.tile(-knots[:-1] * scale, channels)),
        Activate(name=outer, input=inner, activation=within(0, 1)),
        Conv(name=node.name, input=outer, groups=channels, bias=np.full(channels, values[0]),
             weight=np.tile(np.diff(values), (channels, 1))[:, :, None, None])]
