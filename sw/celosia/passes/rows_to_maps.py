"""A linear layer of one position makes the map that its vector becomes."""

import math
from dataclasses import replace

from celosia.graph import Conv, Graph, Node, Reshape
from celosia.passes.rewriting import identity, ranges_after, rename
from celosia_spec.qgraph import NodeKind


def rows_to_maps(graph: Graph) -> Graph:
    """Let the layer in front of a Reshape write its rows where the elements of the map lie.

    After: no Reshape is left. Where something else reads the vector, or no layer can write it so,
    a layer with identity weights does.
    """
    uses, names = graph.uses, dict[str, str]()
    made: dict[str, Node] = {}
    for node in graph.nodes:
        node = rename(node, names)
        if isinstance(node, Reshape):
            before = made.get(node.input)
            if (isinstance(before, Conv) and uses[before.name] == 1 and before.map is None
                    and before.epilogue.add is None and before.epilogue.pool is None):
                names[node.name], uses[before.name] = before.name, uses[node.name]
                node = replace(before, map=node.shape)
            else:
                node = replace(identity(node.name, node.input, math.prod(node.shape),
                                        NodeKind.SELECT), map=node.shape)
        made[node.name] = node
    return replace(graph, nodes=tuple(made.values()), output=names.get(graph.output, graph.output),
                   ranges=ranges_after(graph, names))
