"""A tensor as large as another with which it is broadcast, as PyTorch does."""

from collections.abc import Iterator

import numpy as np

from celosia.graph import BatchNorm, Conv, Move, Node, Shape


def spread(name: str, shape: Shape, whole: Shape, factor: float, names: Iterator[str],
           operator: str, remedy: str) -> list[Node]:
    """Return the nodes that make a tensor of a shape as large as ``whole``, where its axes are 1,
    and its numbers ``factor`` times as large; none where nothing is to be done.

    names : of nodes.   operator, remedy : as `Move` has them.
    """
    nodes: list[Node] = []
    if shape[0] < whole[0]:
        index = np.broadcast_to(np.arange(shape[1] * shape[2]).reshape(1, *shape[1:]),
                                (whole[0], *shape[1:]))
        nodes.append(Move(name=next(names), inputs=(name,), index=index.copy(), operator=operator,
                          remedy=remedy))
        name = nodes[-1].name
    for axis in (1, 2):
        if shape[axis] < whole[axis]:       # every window has the one element, and zeros
            size = (whole[axis], 1) if axis == 1 else (1, whole[axis])
            nodes.append(Conv(
                name=next(names), input=name, groups=whole[0], bias=None, fixed=True,
                weight=np.full((whole[0], 1, *size), factor),
                padding=(size[0] - 1, size[1] - 1, size[0] - 1, size[1] - 1)))
            name, factor = nodes[-1].name, 1.0
    if factor != 1:
        one = np.ones(whole[0])
        nodes.append(BatchNorm(name=next(names), input=name, scale=factor * one, shift=0 * one))
    return nodes
