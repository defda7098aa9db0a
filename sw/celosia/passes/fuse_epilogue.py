"""Additions, activation functions and max-pooling go into the linear node before them."""

from dataclasses import replace

from celosia.graph import Activate, Add, Conv, Graph, MaxPool, Node
from celosia.passes.rewriting import identity, ranges_after, rename
from celosia_spec.epilogue import PLAIN, Activation, Epilogue, within
from celosia_spec.qgraph import NodeKind


def fuse_epilogue(graph: Graph) -> Graph:
    """Let linear nodes do what follows their sums.

    After: no Add is left. It is done by the last of its operands, in topological order, that is
    the plain sum of a linear node which nothing else reads; where there is none, by a linear node
    with identity weights. No activation follows a linear node that nothing else reads, not even
    behind a max pool: both orders give the same bits, and the activation is done first. No max
    pool follows a linear node that can do it (`can_pool`).
    """
    fusion = _Fusion(graph)
    for node in graph.nodes:
        fusion.take(rename(node, fusion.names))
    return replace(graph, nodes=tuple(fusion.made.values()),
                   output=fusion.names.get(graph.output, graph.output),
                   ranges=ranges_after(graph, fusion.names, fusion.sums))


def can_pool(before: Conv, node: MaxPool, uses: dict[str, int]) -> bool:
    """Say whether ``before`` can do the max pool: alone read, without an operand added, without a
    pool so far, and with a channel a row. Windows must not overlap: sums would be computed twice,
    as a select node alone may."""
    (high, wide), (down, across) = node.pool.window, node.pool.stride
    return (uses[before.name] == 1 and before.epilogue.add is None
            and before.epilogue.pool is None and before.map is None
            and (before.keeps or (down >= high and across >= wide)))


def activated(conv: Conv, activation: Activation) -> Conv:
    """Return the node with an activation behind its own: all of them clamp around 0.

    A node that clamps to a bound rounds, and has an exponent of its own.
    """
    (low, high), (least, most) = conv.epilogue.activation.bounds, activation.bounds
    both = within(max(low, least), min(high, most))
    return replace(conv, epilogue=replace(conv.epilogue, activation=both),
                   kind=NodeKind.CONV if conv.keeps and both.clamps else conv.kind)


def pooled(conv: Conv, node: MaxPool) -> Conv:
    """Return the node with a max pool behind it, as `can_pool` says that it may."""
    return replace(conv, epilogue=replace(conv.epilogue, pool=node.pool))


class _Fusion:
    """made : the nodes so far, by name.   names : of tensors that are gone, to what they are now.

    uses : how often each tensor is read.   sums : those that another was added to.
    """

    def __init__(self, graph: Graph) -> None:
        self.uses, self.shapes = graph.uses, graph.shapes
        self.names: dict[str, str] = {}
        self.sums: set[str] = set()
        self.made: dict[str, Node] = {}

    def take(self, node: Node) -> None:
        """Fuse a node into one before it, or keep it as it is."""
        match node:
            case Add():
                self._add(node)
            case Activate() if (sums := self._sums_of(node)) is not None:
                self._fuse(node, activated(sums, node.activation))
            case MaxPool() if (isinstance(before := self.made.get(node.input), Conv)
                               and can_pool(before, node, self.uses)):
                self._fuse(node, pooled(before, node))
            case _:
                self.made[node.name] = node

    def _fuse(self, node: Activate | MaxPool, conv: Conv) -> None:
        """Let ``conv`` stand for itself and for what follows it."""
        self.made[conv.name] = conv
        self._is_now(node.name, node.input)

    def _is_now(self, name: str, other: str) -> None:
        self.names[name] = other
        self.uses[other] = self.uses[name]

    def _sums_of(self, node: Activate) -> Conv | None:
        """Return the linear node whose sums alone the activation works on."""
        first = self.made.get(node.input)
        while isinstance(first, MaxPool) and self.uses[first.name] == 1:
            first = self.made.get(first.input)
        return first if isinstance(first, Conv) and self.uses[first.name] == 1 else None

    def _add(self, node: Add) -> None:
        order = {name: at for at, name in enumerate(self.made)}
        first, last = sorted(node.inputs, key=lambda name: order.get(name, -1))
        for name, other in ((last, first), (first, last)):
            sums = self.made.get(name)
            if isinstance(sums, Conv) and self._is_plain(sums):
                del self.made[name]                 # it stands where the addition stood
                self.made[name] = replace(sums, epilogue=Epilogue(add=other))
                self.sums.add(name)
                return self._is_now(node.name, name)
        sums = identity(node.name, last, self.shapes[node.name][0], NodeKind.CONV)
        self.made[node.name] = replace(sums, epilogue=Epilogue(add=first))

    def _is_plain(self, node: Conv) -> bool:
        return self.uses[node.name] == 1 and node.epilogue == PLAIN and not node.keeps
