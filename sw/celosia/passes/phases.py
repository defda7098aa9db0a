"""In how many phases maps are kept that were enlarged, told before `fold_moves` makes them so."""

import math
from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from celosia.graph import AvgPool, Conv, Graph, MaxPool, Move, Reshape, Shape
from celosia.passes.views import View, common_phases, seen_as

LANES = 16
"""So many columns of a map lie side by side in the banks."""

Phases = tuple[int, int]


def phases(graph: Graph) -> dict[str, Phases]:
    """Return of every tensor in how many phases it is kept at most, along height and width."""
    shapes = graph.shapes
    found: dict[str, Phases] = {graph.input: (1, 1)}
    for node in graph.nodes:
        size = shapes[node.name][1:]
        own = [math.lcm(*(found[name][axis] for name in node.inputs)) for axis in range(2)]
        if isinstance(node, Conv | AvgPool):
            up = node.up if isinstance(node, Conv) else (1, 1)
            own = [kept * factor // math.gcd(kept * factor, step)
                   for kept, factor, step in zip(own, up, node.stride, strict=True)]
        elif isinstance(node, MaxPool | Reshape):
            own = [1, 1]
        elif isinstance(node, Move):
            own = list(_of_move(node, shapes, found))
        lines, columns = (1 if of % kept else kept for of, kept in zip(size, own, strict=True))
        found[node.name] = lines, columns
    return found


def _of_move(node: Move, shapes: Mapping[str, Shape], found: Mapping[str, Phases]) -> Phases:
    """Return the phases of what was moved; one where it is moved element by element."""
    ends = list(accumulate((math.prod(shapes[name]) for name in node.inputs), initial=0))
    owner = np.searchsorted(ends, node.index, side="right") - 1
    most = owner.reshape(len(owner), -1).max(axis=1)
    if ((owner != most[:, None, None]) & (node.index >= 0)).any():
        return 1, 1
    views = []
    for number, name in enumerate(node.inputs):
        if (own := most == number).any():
            index, shape = node.index[own], shapes[name]
            views.append(View.found(np.where(index < 0, -1, index - ends[number]), shape,
                                    seen_as(name, shape[0], shape[1:], found[name])))
    known = [view for view in views if view is not None]
    return common_phases(known) if known and len(known) == len(views) else (1, 1)


def rows(size: tuple[int, int], kept: Phases) -> int:
    """Return how many rows of the banks a line of one channel of a map takes."""
    return math.prod(kept) * -(-(size[1] // kept[1]) // LANES)
