"""Static exponents: what ranges and calibration fix for all images."""

from dataclasses import replace

import numpy as np

from celosia.calibration import check_calibration
from celosia.graph import Graph
from celosia.operand_room import with_room
from celosia.range_exponents import range_exponents
from celosia_sim import golden
from celosia_spec.epilogue import Static
from celosia_spec.errors import CompileError
from celosia_spec.qgraph import QGraph


def static_exponents(graph: Graph, quantised: QGraph,
                     calibration: np.ndarray | None) -> dict[str, int]:
    """Return the exponent of each tensor that its range in the network gives; of all others the
    largest that calibration finds. CompileError where there is neither."""
    known = range_exponents(graph, quantised)
    if calibration is not None:
        return _largest(quantised, calibration) | {
            name: exponent for name, exponent in known.items() if name in graph.ranges}
    for name, tensor in quantised.tensors.items():
        if tensor.exponent.found and name not in known:
            raise CompileError(name, "tensor", "the network has no scale for it, which a static "
                               "exponent could be made of", "give calibration inputs, or use "
                               "exponents='dynamic'")
    return known


def _largest(graph: QGraph, calibration: np.ndarray) -> dict[str, int]:
    """Return the largest exponent of each tensor that calibration finds."""
    if hasattr(calibration, "detach"):
        calibration = calibration.detach().cpu().numpy()
    check_calibration(calibration, graph.tensors[graph.input].user_shape)
    found = golden.run(graph, calibration, keep_tensors=False).exponents
    return {name: int(values.max()) for name, values in found.items()}


def fixed(graph: QGraph, values: dict[str, int]) -> QGraph:
    """Return the graph with the exponents that are found for each image fixed to ``values``."""
    tensors = {name: replace(tensor, exponent=Static(value=values[name],
                                                     least=tensor.exponent.least))
               if tensor.exponent.found else tensor
               for name, tensor in graph.tensors.items()}
    return with_room(replace(graph, tensors=tensors))
