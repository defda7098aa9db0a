"""Room for residual operands, however small the sums are that they join.

What is added to a row's sums is cut at 2^(W - 3) - 1 of their units (numerics, section 3), and a
unit follows the exponent at which the row's input is read. Where that may lie too far below the
operand's own, the node reads at a larger one.
"""

from dataclasses import replace

from celosia_spec.epilogue import highest
from celosia_spec.isa.numbers import EXPONENT_MAX
from celosia_spec.qgraph import QGraph, QNode, least_read, static_exponent


def with_room(graph: QGraph) -> QGraph:
    """Return the graph with the room of every residual operand that may need more than the node's
    input leaves it (numerics, section 4)."""
    return replace(graph, nodes=tuple(replace(node, room=_room(graph, node))
                                      for node in graph.nodes))


def _room(graph: QGraph, node: QNode) -> int | None:
    """Return by how much the exponent of a node's residual operand may lie above that at which it
    reads; None where it has none, or that never lies higher."""
    if (add := node.epilogue.add) is None:
        return None
    room = graph.acc_bits - 4 + int(node.sw.min()) - graph.tensors[node.input].format.fraction
    if add in node.inputs and room >= 0:
        return None
    return room if _highest(graph, add) - room > _lowest(graph, node) else None


def _highest(graph: QGraph, name: str) -> int:
    """Return an exponent that a tensor never exceeds."""
    if (fixed := static_exponent(graph.tensors, name)) is not None:
        return fixed
    made = next((node for node in graph.nodes if node.output == name), None)
    least = graph.tensors[name].exponent.least
    return EXPONENT_MAX if made is None else highest(made.epilogue.activation, least)


def _lowest(graph: QGraph, node: QNode) -> int:
    """Return the smallest exponent at which a node may read, but for its residual operand."""
    fixed = [static_exponent(graph.tensors, name) for name in node.inputs]
    known = [exponent for exponent in fixed if exponent is not None]
    return max([least_read(graph.tensors, node), *known])
