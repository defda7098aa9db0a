"""Zero padding as an operator of its own becomes the padding of the nodes behind it."""

from dataclasses import replace

from celosia.graph import AvgPool, Conv, Graph, Node, Pad


def fold_padding(graph: Graph) -> Graph:
    """Move every Pad into the convolutions and average pools that read it.

    Nothing else reads any (`lift_moves`). After: no Pad is left.
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
    return replace(graph, nodes=tuple(nodes))


def _absorb(node: Node, pad: Pad) -> Node:
    assert isinstance(node, (Pad, Conv, AvgPool)), f"{node.name} reads the padded map"
    up = node.up if isinstance(node, Conv) else (1, 1)
    (a, b, c, d), (top, left, bottom, right) = node.padding, (
        size * apart for size, apart in zip(pad.padding, 2 * up, strict=True))
    return replace(node, input=pad.input, padding=(a + top, b + left, c + bottom, d + right))
