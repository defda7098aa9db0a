"""The dense baseline: the same quantised network with every removed weight stored as a zero."""

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
    rows, columns = node.matrix.shape
    width = node.weights // rows                    # weights a row; columns / width groups
    groups = columns // width
    first = np.arange(rows) // (rows // groups) * width
    indices = first[:, None] + np.arange(width)
    data = np.take_along_axis(node.matrix.toarray(), indices, axis=1)
    return csr_array((data.ravel(), indices.ravel(), np.arange(rows + 1) * width),
                     shape=node.matrix.shape)
