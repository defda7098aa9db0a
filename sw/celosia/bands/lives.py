"""From when to when a network's tensors and exponents are needed."""

from dataclasses import dataclass

from celosia_spec.qgraph import QGraph
from celosia_spec.steps import Ring, stored_name


@dataclass(frozen=True, order=True)
class Life:
    """The first and the last node, by number, at which something must be there.

    -1 is before the first node, the number of nodes is behind the last one.
    """

    born: int
    dies: int


def lives(graph: QGraph) -> dict[str, Life]:
    """Return the life of every tensor that is stored: from the node that makes it to the last one
    that reads it; the input is there before, the output behind the last node, and what is kept from
    step to step always."""
    born = {graph.input: -1} | {node.output: at for at, node in enumerate(graph.nodes)}
    dies = dict(born)
    for at, node in enumerate(graph.nodes):
        for name in (*node.inputs, node.epilogue.add):
            if name is not None:
                dies[stored_name(graph.tensors, name)] = at
    dies[graph.output] = len(graph.nodes)
    always = Life(-1, len(graph.nodes))
    return {name: always if isinstance(graph.tensors[name], Ring) else Life(first, dies[name])
            for name, first in born.items()}
