"""ReLU goes into the linear node before it."""

from dataclasses import replace

from celosia.graph import Conv, Graph, MaxPool, Node, Relu, rename


def fuse_relu(graph: Graph) -> Graph:
    """Let the linear node before a ReLU clamp its own sums.

    After: no ReLU follows a linear node that nothing else reads, not even behind a max pool:
    both orders give the same bits, and the ReLU is done first.
    """
    uses = graph.uses
    names: dict[str, str] = {}
    made: dict[str, Node] = {}
    for node in graph.nodes:
        node = rename(node, names)
        made[node.name] = node
        if not isinstance(node, Relu):
            continue
        first = made.get(node.input)
        while isinstance(first, MaxPool) and uses[first.name] == 1:
            first = made.get(first.input)
        if not isinstance(first, Conv) or uses[first.name] != 1:
            continue
        made[first.name] = replace(first, relu=True)
        names[node.name] = node.input
        uses[node.input] = uses[node.name]
        del made[node.name]
    return replace(graph, nodes=tuple(made.values()), output=names.get(graph.output, graph.output))
