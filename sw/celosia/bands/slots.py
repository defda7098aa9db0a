"""Which slot of the machine holds which exponent, and when."""

from celosia.bands.lives import Life, lives
from celosia_spec.errors import FitError
from celosia_spec.isa.numbers import EXPONENT_SLOTS
from celosia_spec.qgraph import QGraph
from celosia_spec.steps import stored_name


def slots(graph: QGraph) -> tuple[dict[str, int], dict[str, int]]:
    """Return the slot of every tensor's exponent, and that of the exponent at which each node
    reads.

    Exponents that are needed at the same time have different slots. FitError names the node at
    which there are too few.
    """
    found = lives(graph)
    last = graph.nodes[-1]
    if not last.rounds:      # the host rounds the output's sums, and needs to know their unit
        name = stored_name(graph.tensors, last.input)
        found[name] = Life(found[name].born, len(graph.nodes))
    named = [(life, name, False) for name, life in found.items()]
    named += [(Life(at, at + (node is last)), node.name, True)
              for at, node in enumerate(graph.nodes) if node.rounds]
    free_from = [-2] * EXPONENT_SLOTS       # the node at which each slot's last exponent dies
    tensors: dict[str, int] = {}
    read: dict[str, int] = {}
    for life, name, joins in sorted(named):
        slot = next((slot for slot, dies in enumerate(free_from) if dies < life.born), None)
        if slot is None:
            node = graph.nodes[life.born]
            raise FitError(node.name, str(node.kind), f"there more than {EXPONENT_SLOTS} exponents "
                           f"of tensors are needed at once, and the machine holds no more",
                           "let fewer tensors wait for a reader")
        free_from[slot] = life.dies
        (read if joins else tensors)[name] = slot
    tensors |= {name: tensors[stored_name(graph.tensors, name)] for name in graph.tensors}
    return tensors, {node.name: read.get(node.name, tensors[node.input]) for node in graph.nodes}
