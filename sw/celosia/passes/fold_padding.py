"""Zero padding as an operator of its own becomes the padding of the nodes behind it."""

from dataclasses import replace

from celosia.graph import AvgPool, Conv, Graph, Node, Pad, operator
from celosia_spec.errors import CompileError


def fold_padding(graph: Graph) -> Graph:
    """Move every Pad into the convolutions and average pools that read it.

    After: no Pad is left.
    """
    pads: dict[str, Pad] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        for pad in (pads[name] for name in node.inputs if name in pads):
            node = _absorb(node, pad)
        if isinstance(node, Pad):
            pads[node.name] = node
        else:
            nodes.append(node)
    if graph.output in pads:
        raise _refusal(pads[graph.output], "the padded map leaves the network")
    return replace(graph, nodes=tuple(nodes))


def _absorb(node: Node, pad: Pad) -> Node:
    if not isinstance(node, (Pad, Conv, AvgPool)):
        raise _refusal(pad, f"{node.name} ({operator(node)}) reads the padded map")
    (a, b, c, d), (top, left, bottom, right) = node.padding, pad.padding
    return replace(node, input=pad.input, padding=(a + top, b + left, c + bottom, d + right))


def _refusal(pad: Pad, problem: str) -> CompileError:
    return CompileError(pad.name, "pad", problem, "pad in front of convolutions only")
