"""An input of more bits than the machine multiplies: its numbers come in a high and a low part."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from celosia.graph import Conv, Graph, Node
from celosia.passes.rewriting import identity, ranges_after, rename
from celosia_spec.epilogue import PLAIN, Epilogue
from celosia_spec.errors import CompileError
from celosia_spec.qgraph import NodeKind, moves_channels

_WAY_OUT = "compile it without input_bits, or put a layer with weights between the input and this"


def apart(graph: Graph) -> Graph:
    """Leave max pools of layers that read the input to nodes of their own, tensors that they add,
    and maps that they make of their rows: `with_low_parts` adds to the sums of these layers, and
    the machine does no more with such sums.

    CompileError where something else reads the input than layers with weights.
    """
    names: dict[str, str] = {}
    nodes: list[Node] = []
    taken = {graph.input} | {node.name for node in graph.nodes}
    for node in graph.nodes:
        node = rename(node, names)
        assert isinstance(node, Conv), f"{node.name}: only optimised graphs have wide inputs"
        if graph.input in node.inputs:
            _check(node, graph.input)
        pool, add = node.epilogue.pool, node.epilogue.add
        if node.input != graph.input or (pool is None and node.map is None and add is None):
            nodes.append(node)
            continue
        if add is not None:
            nodes.append(replace(node, epilogue=PLAIN))
            names[node.name] = _fresh(f"{node.name}.sum", taken)
            nodes.append(replace(identity(names[node.name], node.name, len(node.weight),
                                          NodeKind.CONV), epilogue=node.epilogue))
            continue
        nodes.append(replace(node, epilogue=replace(node.epilogue, pool=None), map=None))
        names[node.name] = _fresh(f"{node.name}.{'pool' if node.map is None else 'map'}", taken)
        chosen = identity(names[node.name], node.name, len(node.weight), NodeKind.SELECT)
        nodes.append(replace(chosen, epilogue=Epilogue(pool=pool), map=node.map))
    return replace(graph, nodes=tuple(nodes), output=names.get(graph.output, graph.output),
                   ranges={**graph.ranges, **ranges_after(graph, names)})


def with_low_parts(graph: Graph, low: int) -> Graph:
    """Give the input two channels for each, high parts and low parts that are larger by 2^low.

    Each layer that reads it has its weights on the high parts, and before it stands one with the
    same weights, by 2^low smaller, on the low parts, whose sums it adds to its own: rows of both
    have exponents of their own.

    graph : as `apart` returns it.
    """
    if not low:
        return graph
    taken = {graph.input} | {node.name for node in graph.nodes}
    channels, height, width = graph.input_map
    return replace(graph, input_map=(2 * channels, height, width), nodes=tuple(
        chain.from_iterable(_parted(node, low, taken) if graph.input in node.inputs else (node,)
                            for node in graph.nodes)))


def _parted(node: Node, low: int, taken: set[str]) -> Iterator[Conv]:
    assert isinstance(node, Conv)
    name = _fresh(f"{node.name}.low", taken)
    live = np.ones(node.weight.shape, dtype=bool) if node.live is None else node.live
    yield replace(node, name=name, bias=None, weight=_along(np.ldexp(node.weight, -low), 1),
                  live=_along(live, 1), epilogue=PLAIN)
    yield replace(node, weight=_along(node.weight, 0), live=_along(live, 0),
                  epilogue=replace(node.epilogue, add=name))


def _along(weight: np.ndarray, part: int) -> np.ndarray:
    """Return weights (rows, C, kh, kw) of one part of every channel, (rows, 2C, kh, kw)."""
    rows, own, *kernel = weight.shape
    found = np.zeros((rows, own, 2, *kernel), weight.dtype)
    found[:, :, part] = weight
    return found.reshape(rows, 2 * own, *kernel)


def _check(node: Conv, source: str) -> None:
    """CompileError unless a node can read the parts of a wide input."""
    if node.epilogue.add == source:
        raise CompileError(node.name, node.kind, "it adds the input as it is, and the numbers of a "
                           "wide input are in two parts", _WAY_OUT)
    if (node.keeps or node.others or node.input != source
            or moves_channels(node.border)):
        raise CompileError(node.name, node.kind, "it takes elements of the input as they are, and "
                           "those of a wide input are in two parts", _WAY_OUT)


def _fresh(name: str, taken: set[str]) -> str:
    """Return a name that no tensor has, and take it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
