"""The dense baseline: the same quantised network with every removed weight stored as a zero."""

import math
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from celosia_spec.qgraph import QGraph, QNode


def densify(graph: QGraph) -> QGraph:
    """Return ``graph`` with all weights of its nodes stored, zeros included.

    A group's rows keep to the channels of their own group. The golden model gives the same bits
    before and after; the array spends a lane-cycle on every zero.
    """
    return replace(graph, nodes=tuple(replace(node, matrix=_dense(node)) for node in graph.nodes))


def _dense(node: QNode) -> csr_array:
    kept = _kept(node)
    pattern = csr_array(kept)
    return csr_array((node.matrix.toarray()[kept], pattern.indices, pattern.indptr),
                     shape=node.matrix.shape)


def _kept(node: QNode) -> np.ndarray:
    """Return which weights a node has, if none was removed, bool (rows, columns).

    Of a layer whose rows are the phases of an enlarged map, which has weights for some taps only:
    those for taps, and where rows have channels of their own for channels, that a row has any for.
    """
    rows, columns = node.matrix.shape
    stored = np.zeros(node.matrix.shape, bool)
    stored[np.repeat(np.arange(rows), np.diff(node.matrix.indptr)), node.matrix.indices] = True
    groups, rest = divmod(rows * columns, node.weights)
    if not (rest or rows % groups or columns % groups):
        own = np.kron(np.eye(groups, dtype=bool),
                      np.ones((rows // groups, columns // groups), bool))
        if not (stored & ~own).any():
            return own
    by_tap = stored.reshape(rows, -1, math.prod(node.geometry.kernel))
    found = np.broadcast_to(by_tap.any(axis=1, keepdims=True), by_tap.shape)
    if found.sum() > node.weights:          # each row has channels of its own
        found = np.logical_and(found, by_tap.any(axis=2, keepdims=True))
    return found.reshape(rows, columns)
