"""A layer's line of the program's report."""

import numpy as np

from celosia.schedule.schedule import LayerSchedule
from celosia_spec.isa import ArrayConfig, weight_word
from celosia_spec.isa.cycles import lane_cycles
from celosia_spec.program import Layer


def layer_of(layer: LayerSchedule, array: ArrayConfig, *, last: bool) -> Layer:
    """Return a layer's entry in ``Program.layers``."""
    node, window = layer.node, layer.reads.window
    positions = window.positions * window.phases
    useful = int(np.count_nonzero(node.matrix.data))
    words = int(layer.steps.sum()) * layer.groups
    bound = max(-(-useful * positions // array.lanes), -(-useful // array.groups_max))
    return Layer(
        name=node.name, kind=node.kind, rows=node.matrix.shape[0], columns=node.matrix.shape[1],
        positions=positions, weights=node.weights, nonzeros=int(node.matrix.nnz),
        dense_macs=node.weights * positions, macs=useful * positions,
        predicted_cycles=layer.cycles, bound_cycles=bound,
        groups=layer.groups, weight_words=words, padding=words - int(node.matrix.nnz),
        weight_bytes=-(-layer.port_words * weight_word(array).bits // 8) + 4 * len(layer.rows)
        + 2 * len(layer.steps),
        lane_cycles=lane_cycles(layer.work, array, last=last), raised_rows=node.raised)
