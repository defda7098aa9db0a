"""Static exponents of a network that was quantised: from the ranges of its tensors."""

from collections.abc import Collection

import numpy as np

from celosia.graph import Conv, Graph, Range
from celosia_spec.block import floor_log2
from celosia_spec.epilogue import STATIC, highest
from celosia_spec.errors import ArgumentError, CompileError
from celosia_spec.isa.numbers import EXPONENT_MAX
from celosia_spec.qgraph import QGraph, low_sums

_NO_LARGER = 1 + 2.0**-20
"""Sum of a mean's weights, at most: they are rounded."""


def check_static(graph: Graph, exponents: str, *, calibrated: bool) -> None:
    """ArgumentError where exponents are to be static and there is nothing to find them from."""
    if exponents == STATIC and not calibrated and not graph.ranges:
        raise ArgumentError("static exponents need calibration inputs: give calibration an array "
                            "(N, C, H, W) or (N, F), or use exponents='dynamic'")


def range_exponents(graph: Graph, quantised: QGraph) -> dict[str, int]:
    """Return the exponent that the largest value of each tensor's range needs, of tensors whose
    exponent is found and whose range is known.

    CompileError where such a value needs an exponent that there is not.
    """
    activations = {node.output: node.epilogue.activation for node in quantised.nodes}
    found = {}
    for name, (low, high) in ranges(graph, low_sums(quantised)).items():
        tensor = quantised.tensors[name]
        if not tensor.exponent.found:
            continue
        largest = max(high, -low if tensor.signed else 0.0)
        exponent = max(int(floor_log2(np.array(largest))), tensor.exponent.least)
        if name in activations and activations[name].clamps:
            exponent = min(exponent, highest(activations[name], tensor.exponent.least))
        if exponent > EXPONENT_MAX:
            raise CompileError(name, "tensor", f"its scale lets values of up to {largest:g} "
                               f"through, which need the exponent {exponent}, above "
                               f"{EXPONENT_MAX}", "use exponents='dynamic', or smaller scales")
        found[name] = exponent
    return found


def ranges(graph: Graph, coarse: Collection[str] = ()) -> dict[str, Range]:
    """Return the range of each tensor of an optimised graph, as far as it is known: its own, that
    of a clamp, or that of tensors whose elements or whose means its elements are.

    coarse : of these a range that no sum can leave does, too, as it does of the output, whose
             mantissas are wide.
    """
    found = {graph.input: graph.ranges[graph.input]} if graph.input in graph.ranges else {}
    for node in graph.nodes:
        assert isinstance(node, Conv), f"{node.name}: only optimised graphs have ranges"
        bounds = node.epilogue.activation.bounds
        own = graph.ranges.get(node.name) or _of_inputs(node, found)
        if own is None and np.isfinite(bounds).all():
            own = bounds
        if own is None and (node.name == graph.output or node.name in coarse):
            own = _of_sums(node, found)
        if own is not None:
            found[node.name] = (max(own[0], bounds[0]), max(min(own[1], bounds[1]), 0.0))
    return found


def _of_sums(node: Conv, known: dict[str, Range]) -> Range | None:
    """Return the range that a node's sums cannot leave; None where it is not known of what it
    reads."""
    if not set(node.inputs) <= known.keys():
        return None
    largest = {name: max(-known[name][0], known[name][1]) for name in node.inputs}
    sums = np.abs(node.weight).sum(axis=(1, 2, 3)) * max(largest[name] for name in node.read)
    if node.bias is not None:
        sums += np.abs(node.bias)
    if node.epilogue.add is not None:
        sums += largest[node.epilogue.add]
    return -float(sums.max()), float(sums.max())


def _of_inputs(node: Conv, known: dict[str, Range]) -> Range | None:
    """Return the range of what a node reads, as many times as large as the node makes it, where
    it copies, scales or averages that, and the same on the other side of 0 where it may turn its
    sign; else None."""
    sizes = np.abs(node.weight).sum(axis=(1, 2, 3))
    copies = (np.count_nonzero(node.weight, axis=(1, 2, 3)) <= 1).all()
    if (node.epilogue.add is not None or (node.bias is not None and node.bias.any())
            or not (copies or (sizes <= _NO_LARGER).all()) or not set(node.read) <= known.keys()):
        return None
    factor = float(sizes.max() if copies else min(sizes.max(), 1.0))
    low = min(0.0, *(known[name][0] for name in node.read)) * factor
    high = max(0.0, *(known[name][1] for name in node.read)) * factor
    return (low, high) if (node.weight >= 0).all() else (min(low, -high), max(high, -low))
