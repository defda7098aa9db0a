"""The batches of a layer's parts, and what they take: counted, not encoded."""

import math
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np

from celosia.bands.counting import Work
from celosia.bands.filling import page_record
from celosia.bands.layouts import Lines, joined, line_index
from celosia.bands.pages import TURN, dense_steps, index_of, page_steps, row_pages
from celosia.bands.rows import row_order, row_words
from celosia.bands.shares import Share, shares_of
from celosia.bands.spreads import Spread
from celosia_spec.isa.array import ENTRY_WORDS, RING_GAP, Array
from celosia_spec.isa.controls import BATCH, head_words
from celosia_spec.isa.fills import cycles
from celosia_spec.isa.passes import pass_cycles
from celosia_spec.qgraph import QGraph, QNode

DENSE = 32
"""A batch gets a step for every column, and half as many entries, where that adds no more than one
step in so many."""


def works_of(graph: QGraph, node: QNode, array: Array, log2: int,
             layout: Lines | Spread) -> list[Work]:
    """Return the batches of each part."""
    shares, groups = shares_of(graph, node, layout), 1 << log2
    weights = np.diff(node.matrix.indptr)
    rows = [_rows(share, weights, groups) for share in shares]
    whole = _work(graph, node, array, log2, layout, np.concatenate(rows), np.repeat(
        [share.added for share in shares], [len(own) for own in rows]))
    ends = accumulate((len(own) // groups for own in rows), initial=0)
    return [whole.some(begin, end) for begin, end in pairwise(ends)]


def _rows(share: Share, weights: np.ndarray, groups: int) -> np.ndarray:
    """Return the rows of a share in batch order, -1 for none.   weights : how many each has."""
    if share.rows is None:
        return row_order(weights, groups)
    order = row_order(weights[share.rows.start:share.rows.stop], groups)
    return np.where(order < 0, -1, share.rows.start + order)


def _work(graph: QGraph, node: QNode, array: Array, log2: int, layout: Lines | Spread,
          rows: np.ndarray, first: np.ndarray) -> Work:
    """Return batches of rows.

    first : of each row, the row whose residual operand is the first one of its part.
    """
    groups, signed = 1 << log2, graph.tensors[node.input].signed
    index, words = _row_words(node, layout, joined(graph, node).shape[0])
    steps, every = page_steps(words, rows, groups), dense_steps(layout, index)
    dense = every.sum() * (DENSE - 1) <= steps.sum(axis=1) * DENSE
    steps = np.where(dense[:, None], every, steps)
    entries = -(-steps * groups // np.where(dense, 2 * ENTRY_WORDS, ENTRY_WORDS)[:, None])
    taken = entries.sum(axis=1)
    least = pass_cycles(array, log2_groups=log2, signed_in=signed,
                        wide=node.output == graph.output, residual=layout.addends > 0)
    phases = math.prod(node.epilogue.pool.window) if node.epilogue.pool else 1
    passes, filled = steps.sum(axis=1), 0
    if isinstance(layout, Spread) and layout.page:      # another one is filled beside
        filled = max(cycles(page_record(layout, page, 0, array, signed=signed, log2_groups=log2),
                            array) for page in range(layout.pages))
        longer = np.maximum(filled + entries - steps, 0)[:, 1:-1].sum(axis=1)
        passes, filled = passes + longer + TURN * (layout.pages - 1), filled * (layout.pages - 2)
    passes = np.maximum(passes, least) * phases
    added = None
    if layout.addends:                  # an entry more, and a pass of one step
        added = np.where(rows < 0, 0, layout.operand_index()[np.maximum(rows - first, 0)])
        taken, passes = taken + 1, passes + least
    return Work(groups=groups, rows=rows, added=added, page_steps=steps, dense=dense, index=index,
                entries=taken, passes=passes, clusters=array.clusters,
                two_ports=array.two_ports, least=least,
                beside=filled + head_words(array, signed_in=signed) * groups + 1)


def _row_words(node: QNode, layout: Lines | Spread,
               channels: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the column index of every column of the weights, and the `row_pages` of each order in
    which batches read them.   channels : of the input."""
    if isinstance(layout, Lines):
        index, words = _line_words(node, layout.channels, channels)
        return index, [words]
    index = layout.index(channels)
    return index, [row_pages(node.matrix, layout, index_of(layout, index, order))
                   for order in range(layout.orders)]


@lru_cache(maxsize=16)
def _line_words(node: QNode, held: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return column indices and words of a node with so many channels in the banks at a time: they
    are the same in whatever lines these lie."""
    index = line_index(held, channels, math.prod(node.geometry.kernel))
    return index, row_words(node.matrix.indptr, index[node.matrix.indices])[:, None]


def longest_batch(array: Array, *, single: bool) -> int:
    """Return the entries at which batches are cut: those of one pass where another part can be
    fetched meanwhile, others where the ring ends."""
    return min(array.ring // 2 if single else array.ring - RING_GAP,
               BATCH["steps"].most // (2 * ENTRY_WORDS))
