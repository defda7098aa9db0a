"""Max pools of large windows become several of small ones, one behind the other."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from celosia.graph import Graph, MaxPool, Node
from celosia_spec.epilogue import Pool

POSITIONS = 16
"""Most positions of a window: each has a whole group of taps at least, and small machines have 16
of those."""


def part_pools(graph: Graph) -> Graph:
    """Pool along lines first, and then along columns; along either, windows that do not overlap in
    whole parts.

    After: no max pool has more than `POSITIONS`, where its sizes can be parted so. The largest of
    the largest is the largest, so nothing changes.
    """
    names = {graph.input} | {node.name for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node, MaxPool) or _size(node.pool) <= POSITIONS:
            nodes.append(node)
            continue
        source, *parts = node.input, *_parts(node.pool)
        for pool in parts[:-1]:
            name = next(name for number in count(1)
                        if (name := f"{node.name}.part{number}") not in names)
            names.add(name)
            nodes.append(MaxPool(name=name, input=source, pool=pool))
            source = name
        nodes.append(replace(node, input=source, pool=parts[-1]))
    return replace(graph, nodes=tuple(nodes))


def _size(pool: Pool) -> int:
    return pool.window[0] * pool.window[1]


def _parts(pool: Pool) -> Iterator[Pool]:
    for window, stride in _steps(pool.window[1], pool.stride[1]):
        yield Pool(window=(1, window), stride=(1, stride))
    for window, stride in _steps(pool.window[0], pool.stride[0]):
        yield Pool(window=(window, 1), stride=(stride, 1))


def _steps(window: int, stride: int) -> list[tuple[int, int]]:
    """Return windows and strides along an axis that are taken one behind the other."""
    if window == stride == 1:
        return []
    part = next((part for part in range(POSITIONS, 1, -1) if window % part == 0), None)
    if window <= POSITIONS or window != stride or part is None:
        return [(window, stride)]
    return [(part, part), *_steps(window // part, window // part)]
