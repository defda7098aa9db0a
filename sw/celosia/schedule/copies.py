"""Copies: every stored tensor gets one layout, every residual operand a producer in the array."""

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from celosia_spec.epilogue import Kept
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor


def identity(name: str, source: QTensor, result: str, weight_bits: int) -> QNode:
    """Return a node that copies ``source`` mantissa by mantissa; `copied` is its tensor."""
    channels, one = source.shape[0], 1 << weight_bits - 2
    matrix = csr_array((np.full(channels, one, np.int16),
                        (np.arange(channels), np.arange(channels))), (channels, channels))
    zeros = np.zeros(channels, np.int64)
    sw = zeros - (weight_bits - 2)
    return QNode(name=name, kind=NodeKind.COPY, inputs=(source.name,), output=result, matrix=matrix,
                 weights=channels, geometry=Geometry(kernel=(1, 1)), sw=sw, bias=zeros, sb=sw)


def copied(source: QTensor, name: str) -> QTensor:
    """Return the tensor that a copy of ``source`` makes."""
    return replace(source, name=name, exponent=Kept(of=source.name, least=source.exponent.least))


def expand_copies(graph: QGraph) -> QGraph:
    """Insert copies where a tensor is read by several linear nodes, or where the network's input
    is a residual operand.

    After: every tensor has at most one node that reads it from the banks, and the operand of every
    residual addition is some node's output. The golden model gives the same bits.
    """
    readers: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.kind != NodeKind.COPY:
            readers.setdefault(node.input, []).append(node.name)
    added = {node.epilogue.add for node in graph.nodes}
    tensors, nodes = dict(graph.tensors), []
    renamed: dict[tuple[str, str], str] = {}
    made: set[str] = set()

    def copy(source: str, purpose: str) -> None:
        result = f"{source} for {purpose}"
        tensors[result] = copied(tensors[source], result)
        nodes.append(identity(f"copy of {result}", tensors[source], result,
                              graph.weight_bits))

    def copies_of(source: str) -> None:
        """Emit the copies of a tensor that has just been made."""
        if source in made:
            return
        made.add(source)
        names = readers.get(source, [])
        outer = source in added and source == graph.input
        if len(names) > 1 or (outer and names):
            for name in names:
                copy(source, name)
                renamed[name, source] = f"{source} for {name}"
        if outer:
            copy(source, "residual")
            renamed["", source] = f"{source} for residual"

    copies_of(graph.input)
    for node in graph.nodes:
        source, add = renamed.get((node.name, node.input), node.input), node.epilogue.add
        if add is not None:
            add = renamed.get(("", add), add)
        nodes.append(replace(node, inputs=(source,), epilogue=replace(node.epilogue, add=add)))
        result = tensors[node.output]
        if result.exponent.keeps is not None:
            tensors[node.output] = replace(
                result, exponent=Kept(of=source, least=result.exponent.least))
        copies_of(node.output)
    return replace(graph, tensors=tensors, nodes=tuple(nodes))
