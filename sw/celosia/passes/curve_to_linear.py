"""Functions that are no straight lines are clamped linear nodes, a row a piece, and their sum."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from celosia.graph import (
    Activate,
    Add,
    BatchNorm,
    Conv,
    Curve,
    Graph,
    Leaky,
    Move,
    Node,
    Shape,
)
from celosia.passes.phases import phases, rows
from celosia.passes.rewriting import fresh, ranges_after, rename
from celosia_spec.epilogue import Relu, within

_FAINT = 1 / 64
"""Slope far out, in spans of the rest, below which the ends are added to the rest."""

_ROWS, _ELEMENTS = 512, 1 << 14
"""Pieces go through so many rows of the banks, and, if `_PARTS` parts are enough, lie in so many
elements of main memory."""

_PARTS = 24
"""What reads the parts reads all of them, and needs the exponent of each."""

_REMEDY = "use fewer channels, or narrower maps, or ReLU"


def curve_to_linear(graph: Graph) -> Graph:
    """Turn the pieces of a curve, whose rest goes up by ``rise`` from one knot to the next, into
    the sum of ``rise * clamp((x - knot) / (next - knot), 0, 1)``: only the piece that x lies in is
    rounded, all others are 0 or 1. That is added to the ends.

    After: no Curve is left; the last of its layers has its name.
    """
    if not any(isinstance(node, Curve) for node in graph.nodes):
        return graph
    shapes, kept = graph.shapes, phases(graph)
    taken = {graph.input} | {node.name for node in graph.nodes}
    nodes: list[Node] = []
    sources, now = dict(graph.sources), dict[str, str]()

    for node in graph.nodes:
        shape, line = shapes[node.inputs[0]], rows(shapes[node.inputs[0]][1:],
                                                   kept[node.inputs[0]])
        node = rename(node, now)
        if not isinstance(node, Curve):
            nodes.append(node)
            continue
        parts = _parts(node, shape, line, iter(partial(fresh, node.name, taken), None))
        now[node.name] = parts[-1].name
        if node.name in sources:
            sources |= {part.name: sources[node.name] for part in parts}
        nodes += parts
    return replace(graph, nodes=tuple(nodes), sources=sources,
                   output=now.get(graph.output, graph.output), ranges=ranges_after(graph, now))


def _parts(node: Curve, shape: Shape, line: int, names: Iterator[str]) -> list[Node]:
    """Return the nodes of a curve, the last of which is its result.

    line : so many rows of the banks a line of one channel takes.

    What is added to sums is cut where it is much larger than they are (numerics, section 5). So the
    ends, which know no bound, are summed, and the rest is added to them. It is 0 at 0, and nowhere
    much larger than the ends are; where these are faint, it is the other way round.
    """
    channels = shape[0]
    pieces, one = node.pieces, np.ones(channels)
    nodes, factor = _ends(node, one, names)
    end = nodes[-1].name if nodes else node.input
    if len(pieces.knots) == 1:
        return [*nodes, BatchNorm(name=node.name, input=end, scale=factor * one,
                                  shift=pieces.values[0] * one)]
    if not factor:
        return _rest(node, shape, line, names, node.name, 0.0)
    if abs(factor) < _FAINT * np.ptp(pieces.values):
        own = Conv(name=next(names), input=end, groups=channels, bias=0 * one, fixed=True,
                   weight=factor * one[:, None, None, None])
        return [*nodes, own, *_rest(node, shape, line, names, node.name, 0.0),
                Add(name=next(names), left=own.name, right=node.name)]
    at_0 = float(np.interp(0.0, pieces.knots, pieces.values))
    rest = _rest(node, shape, line, names, None, at_0)
    return [*nodes, *rest,
            Conv(name=node.name, input=end, groups=channels, bias=at_0 * one, fixed=True,
                 weight=factor * one[:, None, None, None]),
            Add(name=next(names), left=rest[-1].name, right=node.name)]


def _ends(node: Curve, one: np.ndarray, names: Iterator[str]) -> tuple[list[Node], float]:
    """Return the nodes that make ``above * max(x, 0) + below * min(x, 0)``, none where x itself
    does, and the factor that is still to come.

    one : float64 (channels,), ones.
    """
    below, above = node.pieces.below, node.pieces.above
    if below == above:
        return [], above
    name = next(names)
    if above:
        return [Leaky(name=name, input=node.input, slope=below / above * one) if below else
                Activate(name=name, input=node.input, activation=Relu())], above
    other = next(names)
    return [BatchNorm(name=name, input=node.input, scale=-one, shift=0 * one),
            Activate(name=other, input=name, activation=Relu())], -below


def _rest(node: Curve, shape: Shape, line: int, names: Iterator[str], name: str | None,
          less: float) -> list[Node]:
    """Return the nodes that make the rest less a number, the last of this name, or of the next.

    Where the pieces of all channels do not fit into the banks or main memory, they are made in
    parts of these.
    """
    channels, pieces = shape[0], len(node.pieces.knots) - 1
    most = min(_ROWS // (pieces * line), max(
        _ELEMENTS // (pieces * math.prod(shape[1:])), -(-channels // _PARTS)))
    count = -(-channels // max(most, 1))
    if count == 1:
        inner, outer = next(names), next(names)
        return _part(node, node.input, channels, (inner, outer, name or next(names)), less)
    place = np.arange(math.prod(shape)).reshape(shape)
    made = list[Node]()
    for number in range(count):
        own = place[channels * number // count:channels * (number + 1) // count]
        read = Move(name=next(names), inputs=(node.input,), index=own, operator=node.operator,
                    remedy=_REMEDY)
        made += [read, *_part(node, read.name, len(own), (next(names), next(names), next(names)),
                              less)]
    totals = tuple(one.name for one in made[3::4])
    return [*made, Move(name=name or next(names), inputs=totals, index=place,
                        operator=node.operator, remedy=_REMEDY)]


def _part(node: Curve, source: str, channels: int, names: tuple[str, str, str], less: float
          ) -> list[Node]:
    """Return the nodes, of these names, that make the rest less a number, of some channels. Rows of
    one channel follow each other."""
    inner, outer, total = names
    knots, values = node.pieces.knots, node.pieces.values
    scale = 1 / np.diff(knots)
    return [
        Conv(name=inner, input=source, groups=channels, fixed=True,
             weight=np.tile(scale, channels)[:, None, None, None],
             bias=np.tile(-knots[:-1] * scale, channels)),
        Activate(name=outer, input=inner, activation=within(0, 1)),
        Conv(name=total, input=outer, groups=channels, bias=np.full(channels, values[0] - less),
             weight=np.tile(np.diff(values), (channels, 1))[:, :, None, None], fixed=True)]
