"""Max-pooling goes into the linear node before it."""

from dataclasses import replace

from celosia.graph import Conv, Graph, MaxPool, Node, rename


def fuse_maxpool(graph: Graph) -> Graph:
    """Let the linear node before a max pool take the maximum of its own exact sums.

    After: no max pool follows a linear node that could do it: one without residual operand and
    without a pool so far, read by nothing else, with windows that do not overlap (overlapping
    ones would compute sums twice).
    """
    uses = graph.uses
    names: dict[str, str] = {}
    made: dict[str, Node] = {}
    for node in graph.nodes:
        node = rename(node, names)
        if isinstance(node, MaxPool):
            before = made.get(node.input)
            if isinstance(before, Conv) and can_fuse(before, node, uses):
                names[node.name] = before.name
                uses[before.name] = uses[node.name]
                node = replace(before, pool=node.pool)
        made[node.name] = node
    return replace(graph, nodes=tuple(made.values()), output=names.get(graph.output, graph.output))


def can_fuse(before: Conv, node: MaxPool, uses: dict[str, int]) -> bool:
    """Say whether ``before`` can do the max pool."""
    (high, wide), (down, across) = node.pool.window, node.pool.stride
    return (uses[before.name] == 1 and before.residual is None and before.pool is None
            and down >= high and across >= wide)
