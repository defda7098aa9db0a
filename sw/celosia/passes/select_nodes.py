"""Activations and max-pooling that stand alone become select nodes."""

from dataclasses import replace

from celosia.graph import Activate, Conv, Graph, MaxPool
from celosia.passes.fuse_epilogue import activated, can_pool, pooled
from celosia.passes.rewriting import identity, ranges_after, rename
from celosia_spec.qgraph import NodeKind


def select_nodes(graph: Graph) -> Graph:
    """Turn what is left of activations and max-pooling into linear nodes with identity weights.

    After: every node is a Conv. A select node keeps the block exponent of its input and rounds
    nothing; one that clamps to a bound rounds, and is no select node. A network that computes
    nothing gets one, so that its output is a stored tensor.
    """
    uses, shapes = graph.uses, graph.shapes
    names: dict[str, str] = {}
    made: dict[str, Conv] = {}
    for node in graph.nodes:
        node = rename(node, names)
        if isinstance(node, (Activate, MaxPool)):
            before = made.get(node.input)
            if before is not None and _extends(before, node, uses):
                names[node.name] = before.name
                uses[before.name] = uses[node.name]
            else:
                before = identity(node.name, node.input, shapes[node.input][0], NodeKind.SELECT)
            node = (pooled(before, node) if isinstance(node, MaxPool)
                    else activated(before, node.activation))
        assert isinstance(node, Conv), f"{node.name} was left by the passes before"
        made[node.name] = node
    output = names.get(graph.output, graph.output)
    if output == graph.input:
        output = f"{graph.input}.copy"
        made[output] = identity(output, graph.input, graph.input_map[0], NodeKind.SELECT)
    return replace(graph, nodes=tuple(made.values()), output=output,
                   ranges=ranges_after(graph, names))


def _extends(before: Conv, node: Activate | MaxPool, uses: dict[str, int]) -> bool:
    """Say whether a select node of this pass can do another step; others are fused by now."""
    if isinstance(node, Activate):
        return uses[before.name] == 1
    return can_pool(before, node, uses)
