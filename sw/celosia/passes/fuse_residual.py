"""An addition becomes the residual operand of a linear node."""

from dataclasses import replace

from celosia.graph import Add, Conv, Graph, Node, identity, rename


def fuse_residual(graph: Graph) -> Graph:
    """Give each Add to the linear node, last in topological order, whose sum it adds to.

    After: no Add is left. The node keeps its name and stands where the Add stood; its residual
    operand is a stored tensor. Where neither operand is the plain sum of a linear node that
    nothing else reads, the Add becomes a linear node with identity weights.
    """
    uses, shapes = graph.uses, graph.shapes
    names: dict[str, str] = {}
    made: dict[str, Node] = {}
    for node in graph.nodes:
        node = rename(node, names)
        if isinstance(node, Add):
            order = {name: at for at, name in enumerate(made)}
            operands = sorted(node.inputs, key=lambda name: order.get(name, -1))
            other, last = operands
            sums = _plain(made.get(last), uses)
            if sums is None:
                other, sums = last, _plain(made.get(other), uses)
            if sums is not None:
                names[node.name] = sums.name
                uses[sums.name] = uses[node.name]
                del made[sums.name]
                node = replace(sums, residual=other)
            else:
                node = identity(node.name, operands[1], shapes[node.name][0],
                                residual=operands[0])
        made[node.name] = node
    return replace(graph, nodes=tuple(made.values()), output=names.get(graph.output, graph.output))


def _plain(node: Node | None, uses: dict[str, int]) -> Conv | None:
    """Return the node if it is linear, does nothing behind its sum and has one reader."""
    plain = (isinstance(node, Conv) and uses[node.name] == 1 and node.residual is None
             and not node.relu and node.pool is None and not node.keep)
    return node if plain and isinstance(node, Conv) else None
