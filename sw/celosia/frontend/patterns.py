"""Functions of torch that core ATen has in pieces, and that are known whole."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch.fx import Node as FxNode

from celosia.frontend.origin import operator


@dataclass(frozen=True)
class Prelu:
    """``where(x > 0, x, slope * x)``.   x, slope : nodes.   steps : those in between."""

    x: FxNode
    slope: FxNode
    steps: tuple[FxNode, FxNode]


def prelu(node: FxNode) -> Prelu | None:
    """Return the PReLU that a node is the last piece of, or None."""
    if operator(node) != "where" or len(node.args) != 3:
        return None
    positive, x, other = node.args
    if not all(isinstance(part, FxNode) for part in (positive, x, other)):
        return None
    assert isinstance(positive, FxNode) and isinstance(x, FxNode) and isinstance(other, FxNode)
    if (operator(positive), positive.args) != ("gt", (x, 0)) or operator(other) != "mul":
        return None
    factors = [factor for factor in other.args if factor is not x]
    if len(factors) != 1 or not isinstance(factors[0], FxNode):
        return None
    return Prelu(x, factors[0], (positive, other))


def read(node: FxNode) -> Iterable[FxNode]:
    """Return the nodes that a node reads, as a whole function where it is the last piece of one."""
    found = prelu(node)
    return node.all_input_nodes if found is None else (found.x, found.slope)
