"""A node's share of the work, for the cycle model and for the program's report."""

import numpy as np

from celosia.emit.weight_stream import port_rows
from celosia.schedule.candidates import Candidate
from celosia_spec.isa import ArrayConfig
from celosia_spec.isa.cycles import Work, lane_cycles, layer_cycles
from celosia_spec.program import Layer
from celosia_spec.qgraph import QNode


def work_of(found: Candidate, *, pass_cycles: int, drain_cycles: int, walk_cycles: int,
            clear_rows: int, prefetched: int) -> Work:
    """Return the cycle model's view of a node."""
    positions = found.window.positions * found.window.phases
    weights = int(np.count_nonzero(found.node.matrix.data))
    words = int(found.stream.lengths.sum()) * found.groups
    return Work(lengths=found.stream.lengths, tiles=found.source.tiles,
                phases=found.window.phases, pass_cycles=pass_cycles, drain_cycles=drain_cycles,
                walk_cycles=walk_cycles, clear_rows=clear_rows, prefetched=prefetched,
                useful_macs=weights * positions,
                padding_macs=(words - weights) * positions)


def layer_of(node: QNode, found: Candidate, work: Work, array: ArrayConfig, *, last: bool) -> Layer:
    """Return a node's entry in ``Program.layers``."""
    positions = found.window.positions * found.window.phases
    useful = int(np.count_nonzero(node.matrix.data))
    words = int(work.lengths.sum()) * found.groups
    stored = len(port_rows(found.stream, found.groups, array))
    bound = max(-(-useful * positions // array.lanes), -(-useful // array.groups_max))
    return Layer(
        name=node.name, kind=node.kind, rows=node.matrix.shape[0], columns=node.matrix.shape[1],
        positions=positions, weights=node.weights, nonzeros=int(node.matrix.nnz),
        dense_macs=node.weights * positions, macs=useful * positions,
        predicted_cycles=layer_cycles(work, array, last=last), bound_cycles=bound,
        groups=found.groups, weight_words=words, padding=found.stream.padding,
        weight_bytes=-(-stored * array.weight_word_bits // 8) + 4 * len(found.order)
        + 2 * len(work.lengths),
        lane_cycles=lane_cycles(work, array, last=last), raised_rows=node.raised)
