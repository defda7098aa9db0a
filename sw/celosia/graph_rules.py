"""What holds of a float graph after every pass."""

import math
from dataclasses import replace

import numpy as np

from celosia.graph import Add, Conv, Graph, Multiply, node_shape
from celosia_spec.epilogue import PLAIN


def verify(graph: Graph) -> Graph:
    """Return the graph; AssertionError where a pass broke its rules."""
    known = {graph.input: graph.input_map}
    for node in graph.nodes:
        assert node.name not in known, f"{node.name} is defined twice"
        for name in node.inputs:
            assert name in known, f"{node.name} reads {name} before it is made"
        if isinstance(node, Conv):
            rows, own, _, _ = node.weight.shape
            assert node.weight.dtype == np.float64 and rows % node.groups == 0, node.name
            assert own * node.groups == sum(known[name][0] for name in node.read), node.name
            assert len({known[name][1:] for name in node.read}) == 1, node.name
            assert node.live is None or node.live.shape == node.weight.shape, node.name
            assert node.map is None or (
                node_shape(replace(node, map=None), known) == (math.prod(node.map), 1, 1)
                and node.map[1:] != (1, 1) and node.epilogue.pool is None
                and node.epilogue.add is None), node.name
        if isinstance(node, Add):
            assert known[node.left] == known[node.right], node.name
        if isinstance(node, Multiply):
            assert all(1 in sizes or len(sizes) == 1 for sizes in map(set, zip(
                known[node.left], known[node.right], strict=True))), node.name
        known[node.name] = node_shape(node, known)
        assert min(known[node.name]) > 0, f"{node.name} is empty"
        if isinstance(node, Conv) and node.epilogue.add is not None:
            sums = node_shape(replace(node, epilogue=PLAIN), known)
            assert known[node.epilogue.add] == sums, node.name
    assert graph.output in known, graph.output
    return graph
