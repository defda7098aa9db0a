"""From when to when a network's tensors and exponents are needed."""

from dataclasses import dataclass

from celosia_spec.qgraph import QGraph


@dataclass(frozen=True, order=True)
class Life:
    """The first and the last node, by number, at which something must be there.

    -1 is before the first node, the number of nodes is behind the last one.
    """

    born: int
    dies: int

    def meets(self, other: "Life") -> bool:
        """Whether both must be there at some node."""
        return self.born <= other.dies and other.born <= self.dies


def lives(graph: QGraph) -> dict[str, Life]:
    """Return the life of every tensor: from the node that makes it to the last one that reads it;
    the input is there before, the output behind the last node."""
    born = {graph.input: -1} | {node.output: at for at, node in enumerate(graph.nodes)}
    dies = dict(born)
    for at, node in enumerate(graph.nodes):
        for name in (*node.inputs, node.epilogue.add):
            if name is not None:
                dies[name] = at
    dies[graph.output] = len(graph.nodes)
    return {name: Life(first, dies[name]) for name, first in born.items()}
